"""Real W&B, offline: what a run leaves in its .wandb file, and that a dead W&B stops nothing."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.folder import RunFolder
from ledger.metrics import read_metrics
from mor.config import ConfigError
from mor.evaluate.routing import scalars
from mor.train import run, tracking
from mor.train.loop import Stopped
from mor.train.run import Hooks, train_run
from mor.train.tracking import offline_parts
from sweeps.commands.sync import _sync
from tests.mor.train.wandb_backend import Backend
from tests.wandb_loopback import KEY

BLOCK = 32768


def records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file, which is a LevelDB log: blocks of 32 KiB, split records."""
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def read_offline(folder: Path) -> dict[str, list]:
    from wandb.proto import wandb_internal_pb2 as pb

    found: dict[str, list] = {"run": [], "history": [], "summary": []}
    for file in folder.rglob("*.wandb"):
        for raw in records(file):
            record = pb.Record()
            record.ParseFromString(raw)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found["run"].append(record.run)
            if kind == "history":
                items = record.history.item
                found["history"].append(
                    {("/".join(i.nested_key) or i.key): json.loads(i.value_json) for i in items}
                )
            if kind == "summary":
                for item in record.summary.update:
                    key = "/".join(item.nested_key) or item.key
                    found["summary"].append((key, json.loads(item.value_json)))
    return found


def test_offline_runs_hold_config_history_and_summary(toy_run, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "300")  # its service starts slowly on a busy machine
    config = toy_run("mor", steps=12)
    config = replace(config, runtime=replace(config.runtime, wandb="offline"))
    folder = RunFolder(tmp_path / "mor-tiny-x")
    train_run(config, folder, None, Hooks(group="quick"))
    assert "W&B" not in caplog.text
    deadline = time.monotonic() + 60
    while "status" not in dict((found := read_offline(folder.path))["summary"]):
        assert time.monotonic() < deadline, "W&B's writer did not end"  # it ends after finish()
        time.sleep(0.1)
    assert {run.run_id for run in found["run"]} == {folder.run_id}
    assert {run.run_group for run in found["run"]} == {"quick"}
    assert {run.project for run in found["run"]} == {"mor-isoflop"}
    losses = [entry["loss"] for entry in found["history"] if "loss" in entry]
    metrics = [json.loads(line)["loss"] for line in folder.metrics_file.open()]
    assert losses == metrics
    summary = dict(found["summary"])
    result = folder.result()
    assert summary["status"] == "done"
    spent = summary.get("flops", {}).get("spent", summary.get("flops/spent"))
    assert spent == result.flops.spent


def history(folder: RunFolder) -> dict[int, dict]:
    """What all offline attempts of a run hold, by step; a step that W&B would ignore is none."""
    deadline, parts = time.monotonic() + 60, offline_parts(folder)
    found: dict[int, dict] = {}
    for part in parts:
        while "_runtime" not in dict((read := read_offline(part))["summary"]) or not read["run"]:
            assert time.monotonic() < deadline, "W&B's writer did not end"
            time.sleep(0.1)
        time.sleep(0.5)
        for entry in read_offline(part)["history"]:
            found.setdefault(entry["_step"], {}).update(entry)
    return found


def whole_validation(folder: RunFolder) -> dict[str, float]:
    """Every figure of the final validation that W&B is to have, by its key."""
    result = folder.result()
    assert result is not None
    losses = {name: value for name, value in result.loss.items() if name != "train"}
    return losses | scalars(result.routing or {})


@pytest.mark.parametrize("log_steps", [1, 3, 5])
@pytest.mark.parametrize("points", [0, 4])
def test_offline_holds_every_validation_whatever_the_step(
    log_steps, points, toy_run, tmp_path, monkeypatch
):
    """Twelve steps: the last one is logged at 1 and 3, and some points on the way are."""
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "300")
    config = toy_run("mor", steps=12, eval_points=points)
    runtime = replace(config.runtime, wandb="offline", log_steps=log_steps)
    folder = RunFolder(tmp_path / "mor-tiny-x")
    train_run(replace(config, runtime=runtime), folder, None, Hooks())
    found = history(folder)
    assert whole_validation(folder).items() <= found[12].items()
    validated = [step for step, entry in found.items() if "val_nll_topk" in entry]
    assert validated == ([3, 6, 9, 12] if points else [12])
    for line in read_metrics(folder.metrics_file)[0]:
        step = line.pop("step")
        assert line.items() <= found[step].items()


@pytest.mark.parametrize("moment", ["final checkpoint", "validation on the way"])
def test_offline_holds_every_validation_after_a_restart(moment, toy_run, tmp_path, monkeypatch):
    """Ended between a step and its validation: the next attempt logs both."""
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "300")
    config = toy_run("mor", steps=12, eval_points=2, val_tokens=2048)
    config = replace(config, runtime=replace(config.runtime, wandb="offline"))
    folder = RunFolder(tmp_path / "mor-tiny-x")
    if moment == "final checkpoint":
        with monkeypatch.context() as patched:
            patched.setattr(run, "final_validation", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                train_run(config, folder, None, Hooks())
    else:
        asked = iter(range(1000))
        with pytest.raises(Stopped):
            train_run(config, folder, None, Hooks(should_stop=lambda: next(asked) == 6))
    train_run(config, folder, None, Hooks())
    found = history(folder)
    assert whole_validation(folder).items() <= found[12].items()
    assert "val_nll_causal" in found[6]
    for line in read_metrics(folder.metrics_file)[0]:
        assert "loss" not in line or found[line["step"]]["loss"] == line["loss"]


def online(config, monkeypatch, url: str):
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "300")
    return replace(config, runtime=replace(config.runtime, wandb="online"))


@pytest.fixture
def backend() -> Iterator[Backend]:
    server = Backend()
    yield server
    server.close()


def test_online_a_resumed_run_goes_on_in_the_same_place(toy_run, tmp_path, monkeypatch, backend):
    config = online(toy_run("mor", steps=12), monkeypatch, backend.url)
    folder = RunFolder(tmp_path / "mor-tiny-x")
    calls = iter(range(1000))
    with pytest.raises(Stopped):
        train_run(config, folder, None, Hooks(lambda _: None, lambda: next(calls) == 5))
    train_run(config, folder, None, Hooks(group="quick"))
    assert list(backend.runs) == [folder.run_id]
    assert backend.runs[folder.run_id]["groupName"] == "quick"
    steps = [line["_step"] for line in backend.history[folder.run_id] if "loss" in line]
    assert steps == list(range(1, 13))
    summary, result = backend.summary[folder.run_id], folder.result()
    assert summary["flops"] == result.flops.to_dict()  # planned, spent, and under each convention
    plan = json.loads(backend.runs[folder.run_id]["config"])["plan"]["value"]
    assert plan["steps"] == 12
    assert set(plan["flops"]) == {"paper", "exact", "6nd"}
    assert any(name.endswith("config.yaml") for name in backend.files)
    assert not backend.unknown


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["refused", "silent", "dies"])
def test_a_dead_server_costs_seconds_and_the_run_can_be_uploaded_later(
    fault, toy_run, tmp_path, monkeypatch, caplog, backend
):
    config = online(toy_run("vanilla", steps=8), monkeypatch, backend.url)
    monkeypatch.setattr(tracking, "FINISH_S", 4.0)
    hooks = Hooks()
    if fault == "refused":
        backend.close()
    elif fault == "silent":
        backend.hang()
    else:
        calls = iter(range(1000))

        def die() -> bool:
            if next(calls) == 4:
                backend.hang()
            return False

        hooks = Hooks(should_stop=die)
    folder = RunFolder(tmp_path / "vanilla-tiny-x")
    began = time.monotonic()
    train_run(config, folder, None, hooks)
    assert time.monotonic() - began < 40  # a hang would be minutes; the machine may be busy
    assert folder.result().status == "done"
    assert "python -m sweeps sync uploads it" in caplog.text
    [part] = offline_parts(folder)

    server = Backend()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    assert _sync(folder, [part]) is None
    assert offline_parts(folder) == []
    losses = [line["loss"] for line in server.history[folder.run_id] if "loss" in line]
    assert losses == [json.loads(line)["loss"] for line in folder.metrics_file.open()]
    server.close()


def test_only_the_first_rank_tracks(toy_run, tmp_path, monkeypatch):
    config = online(toy_run("vanilla"), monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv("RANK", "1")
    assert isinstance(tracking.tracker(config, RunFolder(tmp_path)), tracking.NoTracker)


def test_online_without_a_key_is_refused_with_the_way_out(toy_run, tmp_path, monkeypatch):
    config = online(toy_run("vanilla"), monkeypatch, "https://wandb.here.org")
    tracking.refuse_without_key([config])
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ConfigError, match=r"runtime.wandb=online: .*wandb login"):
        tracking.refuse_without_key([config])
    (tmp_path / "netrc").write_text(f"machine wandb.here.org login user password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    tracking.refuse_without_key([config])
