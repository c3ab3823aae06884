"""The learning rate as a function of the share of the budget spent. Plain Python, no torch.

Trapezoid (paper app. C): linear warm-up, plateau, linear cool-down over the last
`cooldown_fraction` of each budget. Warm-up belongs to a named budget (5 % of 2e18's steps in the
paper), never to whatever else is in a sweep, so one run has one schedule. The authors count it at
Nr = 3 for every recursive model of a family (`schedules_360m.csv`: 57 steps for vanilla and all
recursive models, 86 for all MoR ones), hence `train.warmup_recursions`.

A step is placed at its midpoint: with `spent` FLOPs before it and `step_flops` planned for it, it
stands at spent + step_flops / 2. A target is reached when the next step's midpoint lies past it,
so a budget becomes the nearest whole number of steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mor.config import Config, ConfigError
from mor.flops import run_cost
from mor.model.components import recurrence_of

COSINE_FLOOR = 0.1  # share of the peak learning rate at the end of a cosine


@dataclass(frozen=True)
class Schedule:
    """Milestones in FLOPs under the run's convention."""

    kind: str
    budget: float
    step_flops: float  # planned, of one step
    warmup_flops: float
    cooldown_flops: float

    @property
    def plateau_end(self) -> float:
        """FLOPs at which the cool-down begins and a trunk is branched."""
        return self.budget - self.cooldown_flops

    def reached(self, spent: float, target: float) -> bool:
        return spent + self.step_flops / 2 > target

    def factor(self, spent: float) -> float:
        """Share of the peak learning rate for the step that begins at `spent` FLOPs."""
        at = spent + self.step_flops / 2
        warm = min(1.0, at / self.warmup_flops) if self.warmup_flops else 1.0
        if self.kind == "cosine":
            span = self.budget - self.warmup_flops
            done = (at - self.warmup_flops) / span if span else 0.0  # no step comes after it
            wave = (1 + math.cos(math.pi * min(1.0, max(0.0, done)))) / 2
            return warm * (COSINE_FLOOR + (1 - COSINE_FLOOR) * wave)
        if not self.cooldown_flops:
            return warm
        return min(warm, max(0.0, self.budget - at) / self.cooldown_flops)

    def trunk(self) -> Schedule:
        """The same schedule without an end: warm-up, then plateau."""
        return replace(self, budget=math.inf, cooldown_flops=0.0)


@dataclass(frozen=True)
class PlannedSteps:
    """The schedule in whole steps, as a plan prints it."""

    total: int
    warmup: int
    cooldown: int
    stable: int  # the step at which the cool-down begins


def warmup_steps(config: Config) -> int:
    """Steps of warm-up: given, or a fraction of the warm-up budget's steps."""
    train = config.train
    if train.warmup_steps is not None:
        return train.warmup_steps
    model = config.model
    if train.warmup_recursions is not None and recurrence_of(model).ties:
        model = replace(
            model,
            n_recursions=train.warmup_recursions,
            block_layers=None,
            capacity=None,
            kv="recursion",
        )
    step = run_cost(replace(config, model=model)).step_flops[config.flops.convention]
    return round(train.warmup_fraction * train.warmup_budget / step)


def schedule(config: Config) -> Schedule:
    """The schedule of a run. Raises ConfigError where the budget holds no such schedule."""
    step = run_cost(config).step_flops[config.flops.convention]
    if round(config.budget / step) < 1:
        raise ConfigError(
            "budget",
            f"{config.budget:g}",
            f"less than one step of {config.model.name}-{config.size.name} "
            f"({step:.3g} {config.flops.convention} FLOPs)",
            f"set budget={math.ceil(step):.1e} or more, or a smaller train.batch_size",
        )
    warmup = warmup_steps(config) * step
    trapezoid = config.train.schedule == "trapezoid"
    cooldown = config.train.cooldown_fraction * config.budget if trapezoid else 0.0
    if warmup > config.budget - cooldown:
        given = config.train.warmup_steps is not None
        raise ConfigError(
            "train.warmup_steps" if given else "train.warmup_budget",
            config.train.warmup_steps if given else f"{config.train.warmup_budget:g}",
            f"its warm-up of {warmup_steps(config)} steps does not end before the cool-down of "
            f"budget={config.budget:g}",
            _shorter_warmup(config, math.floor((config.budget - cooldown) / step)),
        )
    return Schedule(config.train.schedule, config.budget, step, warmup, cooldown)


def _shorter_warmup(config: Config, most: int) -> str:
    """What to type for a warm-up of at most so many steps, that which was typed first."""
    steps = f"train.warmup_steps={most}" + " or less" * (most > 0)
    if config.train.warmup_steps is None:  # which a budget of warm-up would change nothing of
        same = replace(config, train=replace(config.train, warmup_budget=config.budget))
        if warmup_steps(same) <= most:
            return f"set train.warmup_budget={config.budget:g} or {steps}"
    return f"set {steps}"


def planned_steps(config: Config, plan: Schedule) -> PlannedSteps:
    """Warm-up, plateau and cool-down in whole steps, under the planned cost of a step."""
    total = round(plan.budget / plan.step_flops)
    stable = round(plan.plateau_end / plan.step_flops)
    return PlannedSteps(total, round(plan.warmup_flops / plan.step_flops), total - stable, stable)


def data_rows(config: Config) -> int:
    """Training rows that a run reads, as planned."""
    return planned_steps(config, schedule(config)).total * config.train.batch_size


def has_trunk(config: Config) -> bool:
    """Whether the run cools down from a shared trunk."""
    return config.train.branch and config.train.schedule == "trapezoid"


@dataclass(frozen=True)
class Points:
    """Evenly spaced steps up to a budget, the end left out: those that are validated on the way."""

    number: int = 0
    steps: int = 1  # planned to the budget

    def due(self, step: int) -> bool:
        """Whether the state after `step` steps is validated."""
        return 0 < step < self.steps and self.between(step - 1, step) > 0

    def between(self, after: int, upto: int) -> int:
        """How many of the steps after `after`, up to `upto`, are validated."""
        number = min(self.number, self.steps)
        first, last = (min(step, self.steps - 1) * number // self.steps for step in (after, upto))
        return last - first


def points_of(config: Config) -> Points:
    """The points that train.eval_points asks for, of a run or of the trunk up to its plateau."""
    return Points(config.train.eval_points, planned_steps(config, schedule(config)).total)
