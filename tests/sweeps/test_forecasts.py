"""`launch.forecast=true` writes what the study's points say before the next budget runs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis.commands.cli import app
from ledger.plan_file import RunEntry, StudyFolder
from ledger.store import Ledger
from sweeps.forecasts import forecast
from tests.analysis.conftest import write_result
from tests.analysis.report.conftest import build

SIZES = {"30k": 3e4, "100k": 1e5, "300k": 3e5, "900k": 9e5}


def plan(tmp_path: Path, *runs: tuple[str, str, float], status: str = "planned"):
    """Runs that are about to start: model, size, budget."""
    entries = [
        RunEntry(run_id=f"{model}-{size}-{budget:g}-0", model=model, size=size, budget=budget,
                 n_params_nonembedding=int(SIZES[size]), status=status)
        for model, size, budget in runs
    ]  # fmt: skip
    held = SimpleNamespace(runs=entries)
    return SimpleNamespace(as_file=lambda: held, ledger=Ledger(tmp_path / "runs"))


def written(folder: StudyFolder) -> dict:
    (file,) = (folder.path / "forecasts").glob("*.json")
    return json.loads(file.read_text())


@pytest.fixture
def console(capsys):
    return Console(width=200)


def test_runs_that_wait_are_forecast_and_minima_where_sizes_are_enough(tmp_path, console, capsys):
    folder = StudyFolder(build(tmp_path))
    grid = [(model, size, 1e13) for model in ("vanilla", "mor") for size in list(SIZES)[:3]]
    two = [("mor", size, 1.65e13) for size in ("100k", "900k")]
    forecast(plan(tmp_path, *grid, *two), folder, console)
    content = written(folder)
    assert {(row["model"], row["budget"]) for row in content["predictions"]} == {
        ("vanilla", 1e13), ("mor", 1e13)
    }  # fmt: skip
    assert [(row["model"], row["budget"]) for row in content["gaps"]] == [("mor", 1e13)]
    runs = {(row["model"], row["params"], row["budget"]) for row in content["runs"]}
    assert runs == {(model, SIZES[size], budget) for model, size, budget in (*grid, *two)}
    named = {row["params"]: row["size"] for row in content["runs"]}
    assert named == {3e4: "30k", 1e5: "100k", 3e5: "300k", 9e5: None}  # 900k is new
    assert "forecasts" in capsys.readouterr().out


def test_only_launched_models_are_forecast_and_their_runs_are_scored(tmp_path, console, capsys):
    """Two sizes at a new budget enclose no minimum; a third that is done there is counted."""
    folder = StudyFolder(build(tmp_path))
    forecast(plan(tmp_path, ("mor", "30k", 1e13), ("mor", "300k", 1e13)), folder, console)
    content = written(folder)
    assert (content["predictions"], content["gaps"]) == ([], [])
    assert [(row["model"], row["size"]) for row in content["runs"]] == [
        ("mor", "30k"), ("mor", "300k")
    ]  # fmt: skip
    result = json.loads((tmp_path / "runs" / "mor-30k-1e+12-0" / "result.json").read_text())
    new = {**result, "run_id": "mor-30k-1e+13-0", "budget": 1e13, "tokens": 1e13 / 1.8e5}
    write_result(tmp_path / "runs", new)
    study = json.loads((folder.plan_file).read_text())
    study["runs"].append({"run_id": new["run_id"]})
    folder.plan_file.write_text(json.dumps(study))
    told = CliRunner().invoke(app, ["score", str(folder.path), "--json"])
    (scores,) = (one["scores"] for one in json.loads(told.stdout)["forecasts"])
    assert [row["measured"] is not None for row in scores] == [True, False]


def test_sizes_that_are_done_at_a_budget_count_towards_its_minimum(tmp_path, console):
    folder = StudyFolder(build(tmp_path))
    forecast(plan(tmp_path, ("mor", "900k", 1e12)), folder, console)
    content = written(folder)
    assert [row["model"] for row in content["predictions"]] == ["mor"]
    assert len(content["runs"]) == 1


def test_a_model_without_points_is_said_and_the_others_are_forecast(tmp_path, console, capsys):
    folder = StudyFolder(build(tmp_path))
    forecast(plan(tmp_path, ("token", "30k", 1e13), ("mor", "30k", 1e13)), folder, console)
    assert {row["model"] for row in written(folder)["runs"]} == {"mor"}
    assert "launch.forecast: token" in capsys.readouterr().out


def test_nothing_waits_nothing_is_written(tmp_path, console, capsys):
    folder = StudyFolder(build(tmp_path))
    forecast(plan(tmp_path, ("mor", "30k", 1e12), status="done"), folder, console)
    assert not (folder.path / "forecasts").exists()
    assert capsys.readouterr().out == ""


def test_a_study_without_points_is_launched_all_the_same(tmp_path, console, capsys):
    new = StudyFolder(tmp_path / "studies" / "new")
    forecast(plan(tmp_path, ("mor", "30k", 1e13)), new, console)
    assert "launch.forecast" in capsys.readouterr().out


def test_points_that_no_law_fits_are_said_and_no_file_is_left(tmp_path, console, capsys):
    folder = StudyFolder(build(tmp_path))
    for file in Path(tmp_path / "runs").glob("*/result.json"):
        if json.loads(file.read_text())["budget"] > 1e10:
            file.unlink()
    forecast(plan(tmp_path, ("mor", "30k", 1e13)), folder, console)
    said = capsys.readouterr().out
    assert "launch.forecast" in said
    assert "Traceback" not in said
    assert not (folder.path / "forecasts").exists()
