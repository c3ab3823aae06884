"""Checkpoints in the background: what they hold, what they wait for, what they raise."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from ledger.folder import RunFolder
from mor.train import checkpoint
from mor.train.run import Hooks, train_run
from mor.train.writer import Writer
from tests.mor.train.test_run import _tensors, final


def with_runtime(config, **runtime):
    return replace(config, runtime=replace(config.runtime, **runtime))


@pytest.fixture
def slow(monkeypatch):
    """Checkpoints that are written only once the event is set; how many began."""
    gate, began, whole = threading.Event(), [], checkpoint.save

    def save(path, *arguments):
        began.append(path.name)
        assert gate.wait(60)
        whole(path, *arguments)

    monkeypatch.setattr(checkpoint, "save", save)
    return gate, began


def test_training_goes_on_while_one_checkpoint_is_written(toy_run, tmp_path, slow):
    """What is written is the state at its step, however far training has got meanwhile."""
    gate, began = slow
    config = with_runtime(toy_run("mor", steps=20), checkpoint_s=1e-6, keep_checkpoints=99)
    run = RunFolder(tmp_path / "slow")
    steps: list[int] = []

    def should_stop() -> bool:  # asked after each step
        steps.append(len(steps) + 1)
        if len(steps) == 15:
            assert began == ["step-00000001"]  # at most one in flight
            assert not list(run.checkpoints.glob("step-*"))
            gate.set()
        return False

    train_run(config, run, None, Hooks(should_stop=should_stop))
    assert len(steps) == 20
    waited = with_runtime(config, async_checkpoint=False)
    train_run(waited, RunFolder(tmp_path / "waited"), None, Hooks())
    first = [RunFolder(tmp_path / name).rolling(1) for name in ("slow", "waited")]
    assert _tensors(first[0]) == _tensors(first[1])
    assert final(tmp_path / "slow") == final(tmp_path / "waited")


def test_without_it_every_checkpoint_is_there_before_the_next_step(toy_run, tmp_path):
    config = toy_run("vanilla", steps=8)
    config = with_runtime(config, checkpoint_s=1e-6, keep_checkpoints=99, async_checkpoint=False)
    run, seen = RunFolder(tmp_path / "run"), []
    hooks = Hooks(should_stop=lambda: bool(seen.append(len(list(run.checkpoints.glob("step-*"))))))
    train_run(config, run, None, hooks)
    assert seen == list(range(8))


def test_a_failed_write_ends_the_run_and_is_named(toy_run, tmp_path, monkeypatch):
    config = with_runtime(toy_run("vanilla", steps=10**4), checkpoint_s=1e-6)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(OSError, match="No space left"):
        train_run(config, run, None, Hooks())
    assert run.result() is None


def test_at_most_one_is_in_flight_and_an_error_is_raised_once(monkeypatch, tmp_path):
    gate, order = threading.Event(), []

    def save(path, *_):
        gate.wait(60)
        order.append(path.name)
        if path.name == "a":
            raise OSError("a failed")

    monkeypatch.setattr(checkpoint, "save", save)
    writer = Writer(checkpoint.Ranks(), background=True, keep=2)
    progress = checkpoint.Progress(1, 0.0, checkpoint.Routed(0.0, (), ()))
    writer.save(tmp_path / "a", {}, progress)
    assert writer.busy
    writer.check()  # waits for nothing
    gate.set()
    with pytest.raises(OSError, match="a failed"):
        writer.save(tmp_path / "b", {}, progress)
    writer.save(tmp_path / "c", {}, progress)
    writer.wait()
    assert order == ["a", "c"]
