"""Real W&B, offline: what a run leaves in its .wandb file, and that a dead W&B stops nothing."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mor.train.folder import RunFolder
from mor.train.run import Hooks, train_run

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
    assert spent == result["flops"]["spent"]


def test_a_dead_wandb_changes_no_number(toy_run, tmp_path, monkeypatch, caplog):
    import wandb

    config = toy_run("vanilla", steps=8)
    plain = RunFolder(tmp_path / "plain")
    train_run(config, plain, None, Hooks())
    online = replace(config, runtime=replace(config.runtime, wandb="online"))

    def dead(**_: object) -> None:
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr(wandb, "init", dead)
    folder = RunFolder(tmp_path / "online")
    train_run(online, folder, None, Hooks())
    assert "the run goes on without it" in caplog.text
    assert folder.result()["loss"] == plain.result()["loss"]
