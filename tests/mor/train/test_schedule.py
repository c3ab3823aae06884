"""The schedule in steps against the authors' own, and as a function of the budget spent."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from mor.config import (
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    RouterConfig,
    SizeConfig,
    replace_at,
)
from mor.train.schedule import planned_steps, schedule

SIZE = SizeConfig("360m", 32, 960, 15, 5, 64, 2560)
ROUTERS = {"mor-expert": "expert", "mor-token": "token"}


def released(row: dict[str, str]) -> Config:
    """The configuration of a row of the authors' 360M schedules."""
    router = ROUTERS.get(row["model"], "none")
    recursions = int(row["recursions"])
    model = ModelConfig(
        row["model"],
        "vanilla" if recursions == 1 else "mor" if router != "none" else "recursive",
        recursions,
        kv="shared" if row["kv"] == "sharing" else "recursion",
        router=RouterConfig(router),
    )
    return Config(model, SIZE, DataConfig(vocab_size=49152), budget=16.5e18)


def test_all_nine_released_schedules_within_one_step(paper_table):
    rows = paper_table("schedules_360m")
    assert len(rows) == 9
    for row in rows:
        config = released(row)
        steps = planned_steps(config, schedule(config))
        assert steps.total == pytest.approx(int(row["train_steps"]), abs=1), row
        assert steps.warmup == pytest.approx(int(row["warmup_steps"]), abs=1), row
        assert steps.cooldown == pytest.approx(int(row["decay_steps"]), abs=1), row
        stable = [
            planned_steps(other, schedule(other)).stable
            for other in (replace(config, budget=budget) for budget in (2e18, 5e18, 16.5e18))
        ]
        for ours, theirs in zip(stable, row["stable_checkpoints"].split(";"), strict=False):
            if theirs:
                assert ours == pytest.approx(int(theirs), abs=1), row


def factors(plan, share: float = 1.0) -> list[float]:
    found, spent = [], 0.0
    while not plan.reached(spent, plan.budget * share):
        found.append(plan.factor(spent))
        spent += plan.step_flops
    return found


def test_trapezoid_rises_stays_and_falls(toy_run):
    config = toy_run("vanilla", steps=100, warmup_steps=10)
    plan = schedule(config)
    lr = factors(plan)
    assert len(lr) == 100
    assert lr[:10] == pytest.approx([(i + 0.5) / 10 for i in range(10)])
    assert lr[10:80] == [1.0] * 70
    assert lr[80:] == pytest.approx([(19.5 - i) / 20 for i in range(20)])


def test_a_trunk_has_the_plateau_of_every_budget(toy_run):
    """What makes branching exact: up to a budget's plateau end, its schedule is the trunk's."""
    small, large = (schedule(toy_run("mor", steps=n)) for n in (50, 200))
    trunk = [small.trunk().factor(i * small.step_flops) for i in range(40)]
    assert factors(small, 0.8) == trunk
    assert factors(large, 0.2) == trunk


def test_cosine_ends_at_a_tenth(toy_run):
    lr = factors(schedule(toy_run("vanilla", steps=200, schedule="cosine", warmup_steps=10)))
    assert max(lr) == pytest.approx(1.0, abs=1e-3)
    assert lr[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(a >= b for a, b in pairwise(lr[10:]))


def test_a_cosine_may_be_all_warmup(toy_run):
    for steps in (1, 18):
        config = toy_run("vanilla", steps=steps, schedule="cosine", warmup_steps=steps)
        plan = schedule(config)
        assert plan.warmup_flops == plan.budget
        assert factors(plan) == pytest.approx([(i + 0.5) / steps for i in range(steps)])


def test_warmup_belongs_to_the_named_budget_alone(toy_run):
    config = toy_run("mor", steps=400)
    named = replace(
        config,
        train=replace(config.train, warmup_steps=None, warmup_budget=config.budget / 2),
    )
    a = planned_steps(named, schedule(named))
    b_config = replace(named, budget=named.budget * 3)
    assert a.warmup == planned_steps(b_config, schedule(b_config)).warmup == 10


def test_a_budget_below_one_step_is_refused_with_the_way_out(toy_run):
    config = toy_run("vanilla", steps=10)
    with pytest.raises(ConfigError, match=r"^budget=.*less than one step.*set budget="):
        schedule(replace(config, budget=config.budget / 100))


def test_a_warmup_without_room_is_refused(toy_run):
    config = toy_run("vanilla", steps=10, warmup_steps=9)
    assert advised(config, "train.warmup_steps") == {"train.warmup_steps"}
    config = toy_run("vanilla", steps=10, warmup_steps=11, schedule="cosine")
    assert advised(config, "train.warmup_steps") == {"train.warmup_steps"}


@pytest.mark.parametrize("architecture", ["vanilla", "mor"])
@pytest.mark.parametrize("fraction", [0.05, 0.9])  # of which none but a small one leaves room
def test_a_warmup_budget_without_room_is_refused(toy_run, architecture, fraction):
    config = toy_run(architecture, steps=10, warmup_steps=None, warmup_fraction=fraction)
    config = replace_at(config, "train.warmup_budget", config.budget * 100)
    roomy = {"train.warmup_budget"} if fraction < 0.5 else set()
    assert advised(config, "train.warmup_budget") == {"train.warmup_steps", *roomy}


def advised(config, setting: str) -> set[str]:
    """The settings that a refusal says to type, each of which is enough."""
    with pytest.raises(ConfigError) as caught:
        schedule(config)
    assert caught.value.setting == setting
    found = re.findall(r"(train\.\w+)=([\d.e+]+)", caught.value.instead)
    for name, value in found:
        schedule(replace_at(config, name, value))
    return {name for name, _ in found}
