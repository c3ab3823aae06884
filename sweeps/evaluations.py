"""Evaluations that a study asks for (`study.evaluate`): a task after each run, and its price.

An evaluation is not part of a run's identity and never holds up a run; it is done where the run's
folder has scores on the very tasks that the plan has named. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ledger.ids import evaluation_name
from ledger.plan_file import EvaluationEntry
from ledger.result import DIVERGED
from ledger.store import Ledger
from mor.config import Config, to_dict
from mor.evaluate.task_sets import TaskSet, evaluated
from sweeps.tasks import Task, evaluation_task

if TYPE_CHECKING:
    from sweeps.plan import Run


@dataclass(frozen=True)
class Evaluation:
    """One run on one task set."""

    run_id: str
    config: Config  # of the run
    tasks: TaskSet
    chain: str  # the run's trunk, or the run itself
    exact_flops: float  # of scoring
    gpu_hours: float
    done: bool

    @property
    def evaluation_id(self) -> str:
        return evaluation_name(self.run_id, self.tasks.name)

    def entry(self) -> EvaluationEntry:
        """The evaluation as `launch.plan_file` has it."""
        return EvaluationEntry(
            evaluation_id=self.evaluation_id,
            run_id=self.run_id,
            chain=self.chain,
            tasks=self.tasks.given,
            fingerprint=self.tasks.fingerprint,
            exact_flops=self.exact_flops,
            gpu_hours=self.gpu_hours,
            status="done" if self.done else "planned",
        )

    def worker_entry(self) -> EvaluationEntry:
        """The evaluation as workers need it."""
        return replace(self.entry(), config=to_dict(self.config))

    def task(self, ledger: Ledger) -> Task:
        return evaluation_task(self.worker_entry(), ledger)


def evaluations_of(
    runs: Iterable[Run],
    task_sets: Iterable[TaskSet],
    ledger: Ledger,
    hours: Callable[[Config, float], float],  # of exact FLOPs
) -> list[Evaluation]:
    """Each run on each task set, but for runs that have diverged."""
    return [
        _evaluation(run, tasks, ledger, hours)
        for tasks in task_sets
        for run in runs
        if run.status != DIVERGED
    ]


def _evaluation(
    run: Run, tasks: TaskSet, ledger: Ledger, hours: Callable[[Config, float], float]
) -> Evaluation:
    """Priced at the forward third of training steps, for the tokens that the set has."""
    flops = tasks.tokens * run.cost.step_flops["exact"] / run.cost.tokens_per_step / 3
    return Evaluation(
        run.run_id,
        run.config,
        tasks,
        run.trunk_id or run.run_id,
        flops,
        hours(run.config, flops),
        evaluated(ledger.folder(run.run_id), tasks.name, tasks.fingerprint),
    )
