"""Validation on the way: seen in the metrics, and in nothing else."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.folder import RunFolder
from ledger.metrics import VALIDATION, MetricsWriter, read_metrics
from ledger.result import Result, Throughput
from mor.config import Config, ConfigError
from mor.identity import run_id, trunk_id
from mor.train.loop import Stopped
from mor.train.run import Hooks, _trainer, train_run, train_trunk
from mor.train.schedule import Points, schedule
from mor.validate import validate
from tests.mor.train.test_run import ALL, _tensors, final, kill_at_random


def lines(folder: RunFolder) -> tuple[list[dict], list[dict]]:
    """Lines of training steps, and of validations; without the speed."""
    found, _ = read_metrics(folder.metrics_file)
    timeless = [
        {k: v for k, v in one.items() if k not in ("tokens_per_s", "data_wait")} for one in found
    ]
    trained = [one for one in timeless if VALIDATION not in one]
    return trained, [one for one in timeless if VALIDATION in one]


def seen(config: Config, points: int = 4, **train: Any) -> Config:
    return replace(config, train=replace(config.train, eval_points=points, **train))


def timeless(result: Result | None) -> Result:
    assert result is not None
    return replace(result, throughput=Throughput(), finished=None)


@pytest.mark.parametrize("architecture", ALL)
def test_it_changes_no_id_no_loss_and_no_weight(architecture, toy_run, tmp_path):
    config = toy_run(architecture, steps=30)
    watched = seen(config)
    assert (run_id(watched), trunk_id(watched)) == (run_id(config), trunk_id(config))
    with_points, without = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    train_run(watched, with_points, None, Hooks())
    train_run(config, without, None, Hooks())
    assert timeless(with_points.result()) == timeless(without.result())
    assert final(with_points.path) == final(without.path)
    assert lines(with_points)[0] == lines(without)[0]
    assert lines(without)[1] == []
    points = lines(with_points)[1]
    assert [point["step"] for point in points] == [8, 15, 23]
    for point in points:
        trained = next(one for one in lines(without)[0] if one["step"] == point["step"])
        assert (point["spent"], point["tokens"]) == (trained["spent"], trained["tokens"])
        bits = point["val_nll_causal"] / math.log(2)
        assert point["val_bpb_causal"] == pytest.approx(bits, rel=0.01)  # tokens are bytes here
        assert ("routing/mean_depth" in point) == architecture.startswith("mor")
    assert points[0][VALIDATION] > points[-1][VALIDATION] > with_points.result().validation_loss()


def test_a_point_is_the_validation_of_a_run_that_ends_there(toy_run, tmp_path):
    """The trunk's point at step 16 against the whole validation of the plateau's weights."""
    config = toy_run("mor", steps=20)
    trunk = RunFolder(tmp_path / "trunk")
    train_trunk(seen(config, 5), trunk, Hooks())
    trainer = _trainer(config)
    assert trainer.restore([trunk.plateau(schedule(config).plateau_end)])
    from mor.evaluate.validation import final_validation

    found = final_validation(trainer.model, trainer.batches, 512, trainer.precision())
    [point] = [one for one in lines(trunk)[1] if one["step"] == 16]
    assert {name: point[name] for name in found.losses} == found.losses
    cooled = RunFolder(tmp_path / "cooled")
    train_run(seen(config, 5), cooled, trunk.plateau(schedule(config).plateau_end), Hooks())
    assert lines(cooled)[1] == []  # 16 is the trunk's, 20 is the end


@pytest.mark.parametrize("architecture", ["mor", "mor_token"])
def test_stopped_anywhere_it_ends_with_the_same_points(architecture, toy_run, tmp_path):
    """Asked to stop after every third question: between steps and between validation batches."""
    config = seen(toy_run(architecture, steps=24), 6)
    whole = RunFolder(tmp_path / "whole")
    train_run(config, whole, None, Hooks())
    parts, stops = RunFolder(tmp_path / "parts"), 0
    while parts.result() is None:
        calls = iter(range(1000))
        try:
            train_run(config, parts, None, Hooks(should_stop=lambda: next(calls) == 3))  # noqa: B023
        except Stopped:
            stops += 1
    assert stops > 5
    assert lines(parts) == lines(whole)
    assert final(parts.path) == final(whole.path)
    assert timeless(parts.result()).loss == timeless(whole.result()).loss


def test_a_stop_in_the_middle_of_a_validation_leaves_its_point_to_the_next_start(toy_run, tmp_path):
    config = seen(toy_run("vanilla", steps=12, val_tokens=2048), 2)
    folder = RunFolder(tmp_path / "run")
    asked = iter(range(1000))
    with pytest.raises(Stopped):  # one question a step, then one a batch of validation
        train_run(config, folder, None, Hooks(should_stop=lambda: next(asked) == 6))
    assert lines(folder)[0][-1]["step"] == 6
    assert lines(folder)[1] == []
    assert (folder.rolling(6) / "meta.json").exists()
    train_run(config, folder, None, Hooks())
    assert [point["step"] for point in lines(folder)[1]] == [6]


def test_killed_at_any_moment_it_ends_with_the_same_points(toy_run, tmp_path):
    from mor.train.folder import create_folder

    config = seen(toy_run("mor", steps=120), 40)
    config = replace(config, runtime=replace(config.runtime, checkpoint_s=0.05))
    whole = RunFolder(tmp_path / "whole")
    train_run(config, whole, None, Hooks())
    folder = RunFolder(tmp_path / "killed")
    create_folder(folder, config)
    assert kill_at_random(folder, times=3, seed=1) >= 2
    train_run(config, folder, None, Hooks())
    assert lines(folder) == lines(whole)
    assert final(folder.path) == final(whole.path)
    assert folder.result().loss == whole.result().loss


def test_trunk_points_of_several_budgets_stand_once(toy_run, tmp_path):
    small, large = (seen(toy_run("mor", steps=n), 4) for n in (20, 40))
    trunk = RunFolder(tmp_path / "trunk")
    for config in (small, large, small, large):
        train_trunk(config, trunk, Hooks())
    assert [point["step"] for point in lines(trunk)[1]] == [5, 10, 15, 20, 30]
    plain = RunFolder(tmp_path / "plain")
    train_trunk(toy_run("mor", steps=40), plain, Hooks())
    end = schedule(large).plateau_end
    assert _tensors(trunk.plateau(end)) == _tensors(plain.plateau(end))


def test_no_random_number_of_training_is_drawn(toy_run):
    from mor.evaluate.validation import validation_on_the_way

    trainer = _trainer(toy_run("mor"))
    before = torch.get_rng_state()
    validation_on_the_way(
        trainer.model, trainer.batches, 512, trainer.precision(), lambda *_: torch.rand(3)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert trainer.model.training


@settings(deadline=None)
@given(number=st.integers(0, 60), steps=st.integers(1, 500))
def test_points_are_evenly_spaced_and_leave_the_end_out(number: int, steps: int) -> None:
    points = Points(number, steps)
    due = [step for step in range(steps + 5) if points.due(step)]
    assert len(due) == max(0, min(number, steps) - 1)
    assert all(0 < step < steps for step in due)
    gaps = {b - a for a, b in itertools.pairwise(due)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@settings(deadline=None, max_examples=50)
@given(kinds=st.lists(st.booleans(), max_size=12), torn=st.booleans())
def test_each_line_stands_once_however_often_the_file_is_opened(kinds, torn, tmp_path_factory):
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    for _ in range(2):  # the second time, everything is known
        for step, validated in enumerate(kinds, start=1):
            writer = MetricsWriter(path)
            writer.write(step, loss=1.0)
            if validated:
                writer.write_validation(step, **{VALIDATION: 2.0})
            writer.close()
            if torn:
                with path.open("a") as file:
                    file.write('{"step": 99, "lo')
    writer = MetricsWriter(path)
    assert writer.validated == max([s for s, v in enumerate(kinds, 1) if v], default=-1)
    writer.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    trained = [one["step"] for one in found if VALIDATION not in one]
    assert trained == list(range(1, len(kinds) + 1))
    validations = [one["step"] for one in found if VALIDATION in one]
    assert validations == [step for step, v in enumerate(kinds, 1) if v]


@pytest.mark.parametrize("setting", [{"eval_points": -1}, {"eval_tokens": 8}])
def test_points_that_cannot_be_are_refused(setting, toy_run):
    config = toy_run("vanilla")
    with pytest.raises(ConfigError) as refused:
        validate(replace(config, train=replace(config.train, **setting)))
    assert refused.value.setting == f"train.{next(iter(setting))}"
