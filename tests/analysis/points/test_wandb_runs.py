"""Points from W&B are those of the run store, read from offline files and from a server."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from analysis.errors import AnalysisError
from analysis.fits.isoflop import fit_isoflop
from analysis.points.load import load_points
from analysis.points.wandb_runs import read_offline
from tests.analysis.conftest import result_of, study_table
from tests.analysis.wandb_backend import Backend
from tests.wandb_loopback import KEY

# As a run tracks: metrics on the way, the result as its summary at the end.
TRACK = """
import json, sys, wandb
from mor.train.tracking import WandbTracker
for result in json.load(open(sys.argv[1])):
    cut = result.pop("cut", False)
    run = wandb.init(id=result["run_id"], project="study", group="first", mode="offline",
                     dir=sys.argv[2], settings=wandb.Settings(silent=True, console="off"))
    tracker = WandbTracker.__new__(WandbTracker)
    tracker._run = run
    for step in range(30):
        tracker.log(step, loss=5.0 - step / 10, tokens=step * 1000)
    tracker.finish(**({} if cut else result))
"""


def results(**changes) -> list[dict]:
    table = study_table(models=("vanilla",), sizes={"3k": 3e3, "30k": 3e4, "300k": 3e5})
    rows = [result_of(row) for row in table.to_dict("records")]
    return [{**row, "settings": {"model": {"n_recursions": 3}}, **changes} for row in rows]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine finished runs, one that was cut before its end and a trunk, as W&B leaves them."""
    root = tmp_path_factory.mktemp("offline")
    runs = results()[:3]
    runs.append({**runs[0], "run_id": "vanilla-9m-1e13-0", "cut": True})
    runs.append({**runs[0], "run_id": "vanilla-3k-trunk-aaaa", "cut": True})
    # A long line is more than one block of the file.
    runs[1]["notes"] = "n" * 70_000
    (root / "runs.json").write_text(json.dumps(runs))
    done = subprocess.run(
        [sys.executable, "-c", TRACK, str(root / "runs.json"), str(root)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return root


def test_offline_files_give_the_points_of_the_run_store(tracked):
    points = load_points(tracked)
    expected = study_table(models=("vanilla",), sizes={"3k": 3e3, "30k": 3e4, "300k": 3e5})[:3]
    columns = ["model", "size", "budget", "params", "tokens", "loss", "seed", "convention",
               "data_fingerprint", "git_commit", "run_id"]  # fmt: skip
    found = points.table.sort_values("params").reset_index(drop=True)
    pd.testing.assert_frame_equal(found[columns], expected[columns])
    assert all(Path(source).suffix == ".wandb" for source in found["source"])
    assert points.convention == "paper"
    assert [w.text for w in points.warnings] == [
        "No result yet for 1 of 4 runs: vanilla-9m-1e13-0."
    ]
    other = load_points(tracked, loss="topk", params="total").table
    assert sorted(other["loss"] + 0.5) == pytest.approx(sorted(found["loss"]))


def test_one_offline_file_is_read_with_every_block(tracked):
    (file,) = [f for f in tracked.rglob("*.wandb") if "vanilla-30k" in f.name]
    run_id, summary = read_offline(file)
    assert run_id == "vanilla-30k-1e+10-0"
    assert len(summary["notes"]) == 70_000
    assert load_points(file).table["params"].tolist() == [3e4]


def test_a_torn_file_keeps_what_is_whole(tracked, tmp_path):
    (file,) = [f for f in tracked.rglob("*.wandb") if "vanilla-3k-1e" in f.name]
    data = file.read_bytes()
    shown = []
    for share in (0.1, 0.5, 0.9, 1.0):
        torn = tmp_path / "torn.wandb"
        torn.write_bytes(data[: int(len(data) * share)])
        shown.append(read_offline(torn)[1])
    assert "status" not in shown[0]
    assert shown[-1]["status"] == "done"
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    torn.write_bytes(bytes(flipped))
    assert "status" not in read_offline(torn)[1]


def refusal(path: Path, **options) -> str:
    with pytest.raises(AnalysisError) as caught:
        load_points(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_read_is_one_sentence(tracked, tmp_path):
    (tmp_path / "x.wandb").write_text("no such file")
    assert "is not a W&B file" in refusal(tmp_path / "x.wandb")
    assert "leave it out" in refusal(tracked, study="first")
    cut = tmp_path / "cut"
    (file,) = [f for f in tracked.rglob("*.wandb") if "vanilla-9m" in f.name]
    cut.mkdir()
    shutil.copy(file, cut)
    assert "holds no finished run" in refusal(cut)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    server = Backend()
    yield server
    server.close()


@pytest.fixture
def online(backend, monkeypatch, tmp_path) -> Backend:
    backend.runs.clear()
    monkeypatch.setenv("WANDB_BASE_URL", backend.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    return backend


def test_a_project_is_read_through_the_public_api(online):
    for result in results():
        online.runs[result["run_id"]] = ("first", result)
    online.runs["other"] = ("second", {**results()[0], "run_id": "other", "seed": 5})
    online.runs["open"] = ("first", {"loss": 2.0, "_step": 7})
    points = load_points(Path("wandb://us/study/first"))
    assert online.unknown == []
    assert points.source == "wandb://us/study/first"
    assert len(points.table) == 9
    assert points.table["source"].str.startswith("wandb://us/study/vanilla-").all()
    assert [w.text for w in points.warnings] == ["No result yet for 1 of 10 runs: open."]
    fit = fit_isoflop(points.table, resamples=0).models["vanilla"]
    assert [minimum.n_points for minimum in fit.minima] == [3, 3, 3]
    assert len(load_points(Path("wandb://us/study")).table) == 10


def test_mixed_conventions_data_and_code_are_refused_online_too(online):
    for change in ({"convention": "exact"}, {"data": {"fingerprint": "beef"}}, {"code": "tree2"}):
        online.runs.clear()
        for number, result in enumerate(results(code="tree1")):
            online.runs[result["run_id"]] = ("g", {**result, **(change if number == 4 else {})})
        address = Path("wandb://us/study")
        assert "--allow-mixed" in refusal(address)
        assert len(load_points(address, allow_mixed=True).table) == 9


def test_without_a_key_or_a_server_it_is_one_sentence(online, monkeypatch):
    assert "is not a W&B address" in refusal(Path("wandb://us"))
    assert "holds no finished run" in refusal(Path("wandb://us/study"))
    monkeypatch.delenv("WANDB_API_KEY")
    assert "There is no W&B key" in refusal(Path("wandb://us/study"))
