"""A plan: the runs of a study with their cost, what they share, and what is done already.

A trunk is trained once per (model, size, ...) and cut into segments, one to each budget's plateau
end; each run is a cool-down that depends on its own segment only. Imports no torch: a thousand
runs are planned in a second or two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ledger.ids import folder_of
from ledger.plan_file import PlanFile, RunEntry
from ledger.result import FINISHED
from ledger.store import Ledger
from mor.config import Config, to_dict
from mor.evaluate.task_sets import TaskSet
from mor.flops import RunCost
from mor.model.components import layout
from mor.train.schedule import PlannedSteps
from sweeps.config import ClusterConfig
from sweeps.evaluations import Evaluation, evaluations_of
from sweeps.preparations import Preparation, for_run, preparations_of
from sweeps.prices import Price, validation_flops
from sweeps.segments import Point, Segment, point_of, segments_of
from sweeps.tasks import Kind, Task, TaskGraph, in_order_of_work


@dataclass(frozen=True)
class Run:
    """One point of a study."""

    run_id: str
    config: Config
    cost: RunCost
    steps: PlannedSteps
    trunk_id: str | None
    depends_on: tuple[str, ...]
    own_steps: int  # that the run itself trains: its cool-down, or all without a trunk
    branch_flops: float  # FLOPs at which its cool-down begins
    validation_flops: tuple[float, float]  # exact ones: of the whole run, of its own part
    gpu_hours: float  # of the whole run, as if from scratch
    own_gpu_hours: float
    measured: bool  # priced at a measured speed, not at an assumed MFU
    status: str
    data: str | None = None  # the task that prepares its corpus

    @property
    def tokens(self) -> int:
        return self.steps.total * self.cost.tokens_per_step

    @property
    def flops(self) -> dict[str, float]:
        return {name: self.steps.total * step for name, step in self.cost.step_flops.items()}

    @property
    def own_exact_flops(self) -> float:
        return self.own_steps * self.cost.step_flops["exact"]

    def entry(self) -> RunEntry:
        """The run as `launch.plan_file` has it."""
        depths = layout(self.config.model, self.config.size)
        return RunEntry(
            run_id=self.run_id,
            label=self.config.label,
            model=self.config.model.name,
            size=self.config.size.name,
            budget=self.config.budget,
            seed=self.config.seed,
            convention=self.config.flops.convention,
            n_params=self.cost.params.total,
            n_params_nonembedding=self.cost.params.nonembedding,
            unique_layers=depths.unique_layers,
            effective_layers=depths.effective_layers,
            tokens=self.tokens,
            steps=self.steps.total,
            warmup_steps=self.steps.warmup,
            cooldown_steps=self.steps.cooldown,
            stable_step=self.steps.stable,
            flops=self.flops,
            gpu_hours=self.gpu_hours,
            price="measured" if self.measured else "assumed",
            status=self.status,
            trunk=self.trunk_id,
            depends_on=self.depends_on,
            lr=self.config.train.lr,
            batch_size=self.config.train.batch_size,
            recipe=self.config.train.recipe,
            data=self.data,
        )

    def task(self, ledger: Ledger) -> Task:
        return Task(
            self.run_id,
            Kind.RUN,
            ledger.folder(self.run_id),
            self.depends_on,
            to_dict(self.config),
            self.own_exact_flops,
            self.own_gpu_hours,
            self.branch_flops,
            self.status,
            data=self.data,
        )

    def worker_entry(self) -> RunEntry:
        """The run as workers need it."""
        return replace(
            self.entry(),
            config=to_dict(self.config),
            own_exact_flops=self.own_exact_flops,
            own_hours=self.own_gpu_hours,
            validation_flops=self.validation_flops[1],
            branch_flops=self.branch_flops,
        )


@dataclass
class Plan:
    """All runs of a study and the trunk segments that they branch off."""

    study: str
    ledger: Ledger
    runs: list[Run]
    segments: list[Segment] = field(default_factory=list)
    gpu: str = "h100"
    assumed_mfu: float = 0.4
    evaluations: list[Evaluation] = field(default_factory=list)
    data: list[Preparation] = field(default_factory=list)

    def totals(self) -> dict[str, Any]:
        """Cost with and without shared trunks, and what remains to be trained."""
        alone = sum(run.gpu_hours for run in self.runs)
        shared = sum(s.gpu_hours for s in self.segments) + sum(r.own_gpu_hours for r in self.runs)
        remaining_runs = [run for run in self.runs if run.status not in FINISHED]
        done = {segment.segment_id for segment in self.segments if segment.done}
        needed = self.graph.before([run.run_id for run in remaining_runs], done)
        left = [s for s in self.segments if s.segment_id in needed and not s.done]
        open_ones = [one for one in self.evaluations if not one.done]
        evaluating = {
            "planned": len(self.evaluations),
            "remaining": len(open_ones),
            "gpu_hours": sum(one.gpu_hours for one in open_ones),
        }
        preparing = {
            "missing_tokens": sum(one.more for one in self.data),
            "disk_bytes": sum(one.disk_bytes for one in _last_of_each(self.data)),
            "core_hours": sum(one.core_hours for one in self.data),
        }
        return {
            **({"evaluations": evaluating} if self.evaluations else {}),
            **({"data": preparing} if self.data else {}),
            "runs": len(self.runs),
            "trunks": len({segment.trunk_id for segment in self.segments}),
            "begun": sum(not s.done and s.open_share < 1 for s in self.segments),
            "done": sum(run.status == "done" for run in self.runs),
            "with_trunk_sharing": {
                "exact_flops": sum(s.exact_flops for s in self.segments)
                + sum(r.own_exact_flops for r in self.runs),
                "gpu_hours": shared,
            },
            "without_trunk_sharing": {
                "exact_flops": sum(run.flops["exact"] for run in self.runs),
                "gpu_hours": alone,
            },
            "remaining": {
                "runs": len(remaining_runs),
                "exact_flops": sum(s.exact_flops * s.open_share for s in left)
                + sum(run.own_exact_flops for run in remaining_runs),
                "gpu_hours": sum(s.gpu_hours * s.open_share for s in left)
                + sum(run.own_gpu_hours for run in remaining_runs),
            },
        }

    @cached_property
    def graph(self) -> TaskGraph:
        """Its tasks, in the order in which workers take them."""
        tasks = [segment.task(self.ledger) for segment in self.segments]
        tasks += [run.task(self.ledger) for run in self.runs]
        tasks += [one.task(self.ledger) for one in self.evaluations]
        tasks += [one.task(self.ledger) for one in self.data]
        return in_order_of_work(tasks)

    def as_file(self) -> PlanFile:
        """The plan as people read it (`launch.plan_file`)."""
        return PlanFile(
            study=self.study,
            gpu=self.gpu,
            runs=tuple(run.entry() for run in self.runs),
            segments=tuple(segment.entry() for segment in self.segments),
            evaluations=tuple(one.entry() for one in self.evaluations) or None,
            data=tuple(one.entry() for one in self.data) or None,
            totals=self.totals(),
        )

    def for_workers(self) -> PlanFile:
        """The plan with configurations, as a launch keeps it."""
        return replace(
            self.as_file(),
            runs=tuple(run.worker_entry() for run in self.runs),
            segments=tuple(segment.worker_entry() for segment in self.segments),
            evaluations=tuple(one.worker_entry() for one in self.evaluations) or None,
            data=tuple(one.worker_entry() for one in self.data) or None,
            runs_dir=str(self.ledger.runs_dir),
        )

    def priced_on(self, cluster: ClusterConfig) -> Plan:
        """The same plan with the hours of another machine."""
        price = Price(cluster, self.ledger)
        runs = [
            replace(
                run,
                gpu_hours=price.hours(run.config, run.flops["exact"], run.validation_flops[0]),
                own_gpu_hours=price.hours(run.config, run.own_exact_flops, run.validation_flops[1]),
                measured=price.is_measured(run.config),
            )
            for run in self.runs
        ]
        segments = [
            replace(s, gpu_hours=price.hours(s.config, s.exact_flops, s.validation_flops))
            for s in self.segments
        ]
        scored = [
            replace(one, gpu_hours=price.hours(one.config, one.exact_flops))
            for one in self.evaluations
        ]
        return Plan(
            self.study, self.ledger, runs, segments, cluster.gpu, cluster.mfu, scored, self.data
        )


def build_plan(
    study: str,
    configs: Iterable[Config],
    ledger: Ledger,
    cluster: ClusterConfig,
    task_sets: Sequence[TaskSet] = (),
) -> Plan:
    """Plan the runs of some configurations, each point once, in the order given, and after each
    its evaluation on each task set.

    Raises ConfigError where a budget holds no schedule (less than one step, or no room for the
    warm-up) and LedgerVersionError where the run store is of another version.
    """
    points = {point.run_id: point for point in map(point_of, configs)}
    price = Price(cluster, ledger)
    segments = segments_of(points.values(), ledger, price)
    by_target = {(s.trunk_id, s.target): s.segment_id for s in segments}
    present = ledger.present()
    runs = [
        _run(point, ledger if name in present else None, by_target, price)
        for name, point in points.items()
    ]
    scored = evaluations_of(runs, task_sets, ledger, price.hours)
    data = preparations_of(run.config for run in runs)
    runs = [replace(run, data=for_run(run.config, data)) for run in runs]
    segments = [replace(one, data=for_run(one.config, data)) for one in segments]
    return Plan(study, ledger, runs, segments, cluster.gpu, cluster.mfu, scored, data)


def _last_of_each(preparations: Iterable[Preparation]) -> list[Preparation]:
    """The largest preparation of each corpus."""
    return list({folder_of(one.data_id): one for one in preparations}.values())


def _run(
    point: Point,
    ledger: Ledger | None,
    by_target: dict[tuple[str, float], str],
    price: Price,
) -> Run:
    trunk, steps, exact = point.trunk_id, point.steps, point.cost.step_flops["exact"]
    own = steps.cooldown if trunk else steps.total
    config, cost, end = point.config, point.cost, steps.total
    checks = validation_flops(config, cost, 0, end, ends=True)
    own_checks = validation_flops(config, cost, end - own, end, ends=True)
    return Run(
        run_id=point.run_id,
        config=point.config,
        cost=point.cost,
        steps=steps,
        trunk_id=trunk,
        depends_on=(by_target[trunk, point.target],) if trunk else (),
        own_steps=own,
        branch_flops=point.target,
        validation_flops=(checks, own_checks),
        gpu_hours=price.hours(point.config, steps.total * exact + checks),
        own_gpu_hours=price.hours(point.config, own * exact + own_checks),
        measured=price.is_measured(point.config),
        status=ledger.state(point.run_id) if ledger else "planned",
    )
