"""A number that is none ends a run before its weights move, and is remembered."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from ledger.folder import RunFolder
from mor.train import trainer
from mor.train.distributed import Ranks
from mor.train.divergence import Diverged, clear_diverged
from mor.train.run import Hooks, train_run, train_trunk
from mor.train.schedule import schedule
from mor.train.trainer import Trainer

AT = 13  # the step that goes wrong, from 0


@pytest.fixture
def poison(monkeypatch):
    """A loss, or only its gradient, that is no number at step AT; returns the trainers met."""
    whole, met = Trainer._micro_batch, []

    def set_up(where: str, value: float) -> list[Trainer]:
        def poisoned(self, *arguments):
            loss = whole(self, *arguments)
            if self not in met:
                met.append(self)
            if self.step_index != AT:
                return loss
            if where == "gradient":
                loss.register_hook(lambda gradient: gradient * value)
                return loss
            arguments[2].sums["loss"] = arguments[2].sums["loss"] * value
            return loss * value

        monkeypatch.setattr(Trainer, "_micro_batch", poisoned)
        return met

    return set_up


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_weights_of_the_step_before_are_kept(where, value, poison, toy_run, tmp_path):
    config = toy_run("vanilla", steps=20)
    config = replace(config, runtime=replace(config.runtime, checkpoint_s=1e-6))
    run = RunFolder(tmp_path / "run")
    met = poison(where, value)
    with pytest.raises(Diverged, match=f"step {AT + 1}: loss"):
        train_run(config, run, None, Hooks())
    assert all(p.isfinite().all() for p in met[0].model.parameters())
    assert met[0].step_index == AT
    assert run.result().status == "diverged"
    assert run.result().tokens == AT * 4 * 32
    resumed = Trainer(config, met[0].batches, torch.device("cpu"), Ranks())
    assert resumed.restore(sorted(run.checkpoints.glob("step-*"), reverse=True))
    assert resumed.step_index <= AT
    assert all(p.isfinite().all() for p in resumed.model.parameters())


def test_a_trunk_that_diverged_is_not_trained_again_until_asked(
    poison, toy_run, tmp_path, monkeypatch
):
    short, long = toy_run("mor", steps=10), toy_run("mor", steps=30)
    trunk = RunFolder(tmp_path / "trunk")
    poison("loss", float("nan"))
    with pytest.raises(Diverged, match=f"step {AT + 1}"):
        train_trunk(long, trunk, Hooks())

    def no_trainer(*arguments):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "__init__", no_trainer)
        with pytest.raises(Diverged, match=f"step {AT + 1}.*not trained again"):
            train_trunk(long, trunk, Hooks())
    train_trunk(short, trunk, Hooks())  # its plateau ends before: as good as ever
    assert trunk.plateau(schedule(short).plateau_end).exists()

    monkeypatch.undo()
    assert clear_diverged(trunk)
    assert not clear_diverged(trunk)
    train_trunk(long, trunk, Hooks())
    lines = [json.loads(line)["step"] for line in trunk.metrics_file.read_text().splitlines()]
    assert lines == list(range(1, 25))


def test_a_run_that_diverged_can_be_forgotten(poison, toy_run, tmp_path):
    run = RunFolder(tmp_path / "run")
    poison("loss", float("nan"))
    with pytest.raises(Diverged):
        train_run(toy_run("vanilla", steps=20), run, None, Hooks())
    assert clear_diverged(run)
    assert run.result() is None
