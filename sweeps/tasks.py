"""What a worker takes and what it depends on: one `Task`, one `TaskGraph` from plan to worker.

A trunk is cut into segments, each of which depends on the one before it; a run depends on the
segment at whose end its cool-down begins, or on nothing. An evaluation depends on its run. What
reads a sharded corpus depends on the task that prepares its tokens, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from ledger.errors import DamagedFile
from ledger.folder import RunFolder
from ledger.ids import evaluation_name, folder_of
from ledger.plan_file import DataEntry, EvaluationEntry, PlanFile, RunEntry, SegmentEntry
from ledger.result import FINISHED
from ledger.store import Ledger
from mor.config import Config, from_dict
from mor.data.needs import Need, prepared
from mor.evaluate.task_sets import evaluated


class Kind(StrEnum):
    SEGMENT = "segment"  # a stretch of a trunk
    RUN = "run"
    EVALUATION = "evaluation"  # of a run that is done, on a set of tasks
    DATA = "data"  # the tokens that some runs read


@dataclass(frozen=True)
class Task:
    """Something that a worker does once. Plain data: it can be written down and sent."""

    task_id: str
    kind: Kind
    folder: RunFolder  # of the run, or of the trunk that a segment is part of
    depends_on: tuple[str, ...]  # ids of tasks
    config_values: dict[str, Any]
    exact_flops: float  # that it trains itself
    gpu_hours: float
    target: float  # where a segment ends, or the cool-down of a run begins (FLOPs)
    status: str = "planned"  # when it was planned
    of_chain: str | None = None  # of an evaluation: the trunk of its run, or the run
    evaluate: str | None = None  # of an evaluation: its task set, by name or path
    fingerprint: str | None = None  # of an evaluation: of its tasks, as they were planned
    data: str | None = None  # the task that prepares the tokens that it reads
    val_tokens: int = 0  # of a preparation, whose target is in training tokens
    core_hours: float = 0.0  # of a preparation
    validation_flops: float = 0.0  # exact ones, beside those that it trains
    open_share: float = 1.0  # of a segment: what no plateau of its trunk held when it was planned

    @cached_property
    def config(self) -> Config:
        return from_dict(Config, self.config_values)

    @property
    def is_segment(self) -> bool:
        return self.kind is Kind.SEGMENT

    @property
    def is_run(self) -> bool:
        return self.kind is Kind.RUN

    @property
    def is_evaluation(self) -> bool:
        return self.kind is Kind.EVALUATION

    @property
    def is_data(self) -> bool:
        return self.kind is Kind.DATA

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of all tasks that come before it."""
        return self.depends_on + ((self.data,) if self.data else ())

    @property
    def rank(self) -> int:
        """The place of its kind among tasks of one budget."""
        return [Kind.DATA, Kind.SEGMENT, Kind.RUN, Kind.EVALUATION].index(self.kind)

    @property
    def chain(self) -> str:
        """The trunk of a task, or the run itself where it has none."""
        return self.of_chain or folder_of((self.depends_on or (self.task_id,))[0])

    @property
    def budget(self) -> float:
        """FLOPs of the run, or of the run that branches off at the segment's end."""
        return float(self.config_values["budget"])

    @property
    def done(self) -> bool:
        """Whether it was finished when it was planned."""
        return self.status in FINISHED

    @property
    def hours_left(self) -> float:
        """GPU-hours of what was not trained when it was planned."""
        return self.gpu_hours * self.open_share

    @property
    def goal(self) -> float:
        """What its status counts up to: FLOPs, or training tokens of a preparation."""
        return self.target if self.is_segment or self.is_data else self.budget

    def trunk(self, ledger: Ledger) -> RunFolder | None:
        """The trunk that a run branches off."""
        branches = self.is_run and self.depends_on
        return ledger.folder(folder_of(self.depends_on[0])) if branches else None

    def finished(self, ledger: Ledger) -> bool:
        """Whether it is finished now."""
        if self.is_evaluation:
            return evaluated(self.folder, self.task_set, self.fingerprint or "")
        if self.is_segment:
            return self.folder.plateau_done(self.target)
        if self.is_data:
            need = Need(int(self.target), self.val_tokens)
            return prepared(self.config.data).missing(need) == 0
        return ledger.state(self.folder.run_id) in FINISHED

    @property
    def task_set(self) -> str:
        """The name of an evaluation's task set."""
        return self.task_id.removeprefix(evaluation_name(self.folder.run_id, ""))

    def failed(self, launch_id: str) -> bool:
        """Whether it has failed under this very launch: a later launch tries again. A run that has
        diverged is not evaluated."""
        if self.is_evaluation and self._diverged():
            return True
        status = self.folder.status() or {}
        return (
            status.get("state") in ("failed", "diverged")
            and status.get("launch_id") == launch_id
            and status.get("task_id") == self.task_id
        )

    def _diverged(self) -> bool:
        try:
            result = self.folder.result()
        except DamagedFile:
            return False
        return result is not None and result.diverged

    def claimed(self, ledger: Ledger) -> bool:
        return ledger.claim(self.folder.run_id).held()

    def to_dict(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "kind": str(self.kind),
            "folder": str(self.folder.path),
            "depends_on": list(self.depends_on),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        typed = {
            "kind": Kind(values["kind"]),
            "folder": RunFolder(Path(values["folder"])),
            "depends_on": tuple(values["depends_on"]),
        }
        return cls(**{**values, **typed})


class TaskGraph:
    """Tasks by their ids, in the order given, with what depends on what."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = {task.task_id: task for task in tasks}

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, task_id: str) -> Task:
        return self._tasks[task_id]

    def order(self) -> list[Task]:
        """Every task after those that it depends on, otherwise in the order given."""
        placed: dict[str, Task] = {}
        for task in self:
            missing = self.before([task.task_id]) - placed.keys()
            placed.update((t.task_id, t) for t in self._by_depth(missing))
            placed.setdefault(task.task_id, task)
        return list(placed.values())

    def _by_depth(self, names: Collection[str]) -> list[Task]:
        return sorted((self[n] for n in names), key=lambda t: len(self.before([t.task_id])))

    def before(self, names: Iterable[str], done: Collection[str] = ()) -> set[str]:
        """Everything that some tasks depend on; nothing is needed behind a task that is done."""
        found: set[str] = set()
        waiting = [need for name in names for need in self[name].needs]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                if name not in done:
                    waiting.extend(self[name].needs)
        return found

    def after(self, names: Iterable[str]) -> set[str]:
        """Some tasks with everything that depends on them."""
        found, grown = set(names), True
        while grown:
            more = {task.task_id for task in self if found.intersection(task.needs)} - found
            grown = bool(more)
            found |= more
        return found

    def needed(self, done: Collection[str]) -> set[str]:
        """Runs and evaluations that are not done, and what is on the way to them and not done."""
        ends = [t for t in self if t.is_run or t.is_evaluation]
        runs = [t.task_id for t in ends if t.task_id not in done]
        return {*runs, *self.before(runs, done)}.difference(done)

    def left(self) -> list[Task]:
        """What was left to do when it was planned, in the order given."""
        needed = self.needed({task.task_id for task in self if task.done})
        return [task for task in self if task.task_id in needed]

    def ready(self, done: Collection[str]) -> list[Task]:
        """Needed tasks whose dependencies are done, in the order given."""
        needed, ended = self.needed(done), set(done)
        return [t for t in self if t.task_id in needed and ended.issuperset(t.needs)]

    def chains_of(self, names: Collection[str]) -> TaskGraph:
        """The tasks of the trunks and runs that some tasks belong to, and their data tasks."""
        chains = {task.chain for task in self if task.task_id in names}
        found = [task for task in self if task.chain in chains]
        corpora = {folder_of(task.data) for task in found if task.data} - chains
        return TaskGraph([t for t in self if t.chain in corpora] + found)


def in_order_of_work(tasks: Iterable[Task]) -> TaskGraph:
    """The graph of some tasks, in the order in which workers take them.

    Small budgets first, so that the curves fill early; within a budget the expensive ones first,
    so that the pool ends together.
    """
    return TaskGraph(sorted(tasks, key=lambda t: (t.budget, t.rank, -t.exact_flops)))


def tasks_of(plan: PlanFile, ledger: Ledger) -> TaskGraph:
    """The tasks of a plan that was written for workers."""
    tasks = [_segment_task(entry, ledger) for entry in plan.segments]
    tasks += [_run_task(entry, ledger) for entry in plan.runs]
    tasks += [evaluation_task(entry, ledger) for entry in plan.evaluations or ()]
    tasks += [data_task(entry, ledger) for entry in plan.data or ()]
    return in_order_of_work(tasks)


def evaluation_task(entry: EvaluationEntry, ledger: Ledger) -> Task:
    """The task of an evaluation: after its run, in the run's folder."""
    config = entry.config or {}
    return Task(
        entry.evaluation_id,
        Kind.EVALUATION,
        ledger.folder(entry.run_id),
        (entry.run_id,),
        config,
        entry.exact_flops,
        entry.gpu_hours,
        float(config["budget"]),
        entry.status,
        of_chain=entry.chain,
        evaluate=entry.tasks,
        fingerprint=entry.fingerprint,
    )


def data_task(entry: DataEntry, ledger: Ledger) -> Task:
    """The task of a preparation: it trains nothing, and writes its log in a folder of its own."""
    return Task(
        entry.data_id,
        Kind.DATA,
        ledger.folder(folder_of(entry.data_id)),
        entry.depends_on,
        entry.config or {},
        0.0,
        0.0,
        float(entry.tokens),
        entry.status,
        val_tokens=entry.val_tokens,
        core_hours=entry.core_hours,
    )


def _segment_task(entry: SegmentEntry, ledger: Ledger) -> Task:
    return Task(
        entry.segment_id,
        Kind.SEGMENT,
        ledger.folder(entry.trunk_id),
        entry.depends_on,
        entry.config or {},
        entry.exact_flops,
        entry.gpu_hours,
        entry.target_flops,
        entry.status,
        data=entry.data,
        validation_flops=entry.validation_flops or 0.0,
    )


def _run_task(entry: RunEntry, ledger: Ledger) -> Task:
    assert entry.own_exact_flops is not None
    assert entry.branch_flops is not None
    return Task(
        entry.run_id,
        Kind.RUN,
        ledger.folder(entry.run_id),
        entry.depends_on,
        entry.config or {},
        entry.own_exact_flops,
        entry.own_gpu_hours,
        entry.branch_flops,
        entry.status,
        data=entry.data,
        validation_flops=entry.validation_flops or 0.0,
    )
