"""Trunks of a plan, cut into segments: one to each budget's plateau end.

A trunk goes on from the newest plateau that its folder holds, also from one of a budget that is not
planned now.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ledger.ids import segment_name
from ledger.plan_file import SegmentEntry
from ledger.store import Ledger
from mor.config import Config, to_dict
from mor.flops import RunCost, run_cost
from mor.identity import run_id, trunk_id
from mor.train.schedule import PlannedSteps, has_trunk, planned_steps, schedule
from sweeps.prices import Price, validation_flops
from sweeps.tasks import Kind, Task


@dataclass(frozen=True)
class Segment:
    """A stretch of a trunk: from the plateau end before it to that of one budget."""

    segment_id: str
    trunk_id: str
    config: Config  # of a run that branches off at its end
    target: float  # FLOPs at its end, under the convention of the study
    steps: int  # of this stretch
    exact_flops: float
    validation_flops: float  # of the points on the way
    gpu_hours: float
    depends_on: tuple[str, ...]
    done: bool
    open_share: float = 1.0  # of it that no plateau of its trunk holds; where it is not done
    data: str | None = None  # the task that prepares its corpus

    def entry(self) -> SegmentEntry:
        """The segment as `launch.plan_file` has it."""
        return SegmentEntry(
            segment_id=self.segment_id,
            trunk_id=self.trunk_id,
            target_flops=self.target,
            steps=self.steps,
            exact_flops=self.exact_flops,
            gpu_hours=self.gpu_hours,
            status="done" if self.done else "planned",
            depends_on=self.depends_on,
            data=self.data,
        )

    def task(self, ledger: Ledger) -> Task:
        return Task(
            self.segment_id,
            Kind.SEGMENT,
            ledger.folder(self.trunk_id),
            self.depends_on,
            to_dict(self.config),
            self.exact_flops,
            self.gpu_hours,
            self.target,
            "done" if self.done else "planned",
            data=self.data,
            open_share=self.open_share,
        )

    def worker_entry(self) -> SegmentEntry:
        """The segment as workers need it."""
        config, checks = to_dict(self.config), self.validation_flops
        return replace(self.entry(), config=config, validation_flops=checks)


@dataclass(frozen=True)
class Point:
    """What a configuration comes to, computed once."""

    config: Config
    run_id: str
    trunk_id: str | None
    cost: RunCost
    target: float  # plateau end, FLOPs
    steps: PlannedSteps


def point_of(config: Config) -> Point:
    """Raises ConfigError where its budget holds no schedule."""
    plan = schedule(config)
    trunk = trunk_id(config) if has_trunk(config) else None
    steps = planned_steps(config, plan)
    return Point(config, run_id(config), trunk, run_cost(config), plan.plateau_end, steps)


def segments_of(points: Iterable[Point], ledger: Ledger, price: Price) -> list[Segment]:
    """The segments of all trunks, a trunk's in order; what its folder already holds is done."""
    trunks: dict[str, dict[float, Point]] = {}
    for point in points:
        if point.trunk_id:
            trunks.setdefault(point.trunk_id, {}).setdefault(point.target, point)
    return [
        segment
        for name, targets in trunks.items()
        for segment in _cut(name, targets, ledger, price)
    ]


def _cut(
    trunk: str, targets: dict[float, Point], ledger: Ledger, price: Price
) -> Iterable[Segment]:
    from_step = 0
    folder = ledger.folder(trunk)
    plateaus = folder.plateaus()
    before: tuple[str, ...] = ()
    for target, point in sorted(targets.items()):
        steps = point.steps.stable - from_step
        flops = steps * point.cost.step_flops["exact"]
        checks = validation_flops(point.config, point.cost, from_step, point.steps.stable)
        name = segment_name(trunk, target)
        begins = max((one for one in plateaus.values() if one < target), default=0.0)
        step = point.cost.step_flops[point.config.flops.convention]
        begun = min(max(math.ceil(begins / step) - from_step, 0), steps)
        yield Segment(
            segment_id=name,
            trunk_id=trunk,
            config=point.config,
            target=target,
            steps=steps,
            exact_flops=flops,
            validation_flops=checks,
            gpu_hours=price.hours(point.config, flops + checks),
            depends_on=before,
            done=folder.plateau(target) in plateaus,
            open_share=1 - begun / steps if steps else 1.0,
        )
        from_step, before = point.steps.stable, (name,)
