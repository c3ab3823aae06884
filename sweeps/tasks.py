"""The tasks of a plan as a worker sees them: trunk segments and runs, which are ready, in which
order."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ledger.files import write_json
from ledger.folder import RunFolder
from ledger.store import Ledger
from mor.config import Config, from_dict
from sweeps.plan import FINISHED

log = logging.getLogger(__name__)

CANCELLED = "cancelled.json"  # in the folder of a launch
LOOK_S = 1.0  # between looks at it
PATIENCE_S = 120.0  # a network file system may show a finished file that late


@dataclass(frozen=True)
class Task:
    """A trunk segment or a run, from a study's plan file."""

    task_id: str
    folder: RunFolder
    config_values: dict[str, Any]
    depends_on: tuple[str, ...]
    is_segment: bool
    exact_flops: float
    target: float  # where a segment ends, or the cool-down of a run begins (FLOPs)

    @cached_property
    def config(self) -> Config:
        return from_dict(Config, self.config_values)

    def trunk(self, ledger: Ledger) -> RunFolder | None:
        """The trunk that a run branches off."""
        return ledger.folder(self.depends_on[0].split("@")[0]) if self.depends_on else None

    def finished(self, ledger: Ledger) -> bool:
        if self.is_segment:
            return self.folder.plateau_done(self.target)
        return ledger.state(self.folder.run_id) in FINISHED

    def failed(self, launch_id: str) -> bool:
        """Whether it has failed under this very launch: a later launch tries again."""
        status = self.folder.status() or {}
        return (
            status.get("state") in ("failed", "diverged")
            and status.get("launch_id") == launch_id
            and status.get("task_id") == self.task_id
        )

    def claimed(self, ledger: Ledger) -> bool:
        return ledger.claim(self.folder.run_id).held()


def read_cancelled(launch_folder: Path) -> frozenset[str]:
    """Tasks that this launch is to leave alone."""
    try:
        return frozenset(json.loads((launch_folder / CANCELLED).read_text())["tasks"])
    except (OSError, ValueError, KeyError):
        return frozenset()


def cancel_tasks(launch_folder: Path, task_ids: Iterable[str]) -> None:
    """Leave word that a launch is to leave tasks alone: no worker takes one of them, and one that
    has it in hand checkpoints and stops. A later launch is free to take them."""
    tasks = read_cancelled(launch_folder) | set(task_ids)
    write_json(launch_folder / CANCELLED, {"tasks": sorted(tasks)})


def read_tasks(plan_file: Path, ledger: Ledger, only: Collection[str] | None = None) -> list[Task]:
    """The tasks of a plan file that was written for workers; with `only`, those of the trunks and
    runs that these task ids belong to."""
    tasks = tasks_of(json.loads(plan_file.read_text()), ledger)
    if only is None:
        return tasks
    chains = {_chain(task) for task in tasks if task.task_id in only}
    return [task for task in tasks if _chain(task) in chains]


def _chain(task: Task) -> str:
    """The trunk of a task, or the run itself where it has none."""
    return (task.depends_on or (task.task_id,))[0].split("@")[0]


def tasks_of(plan: dict[str, Any], ledger: Ledger) -> list[Task]:
    """The tasks of a plan with configurations, in the order in which workers take them.

    Small budgets first, so that the curves fill early; within a budget the expensive ones first,
    so that the pool ends together.
    """
    tasks = [
        Task(
            entry["segment_id"],
            ledger.folder(entry["trunk_id"]),
            entry["config"],
            tuple(entry["depends_on"]),
            True,
            entry["exact_flops"],
            entry["target_flops"],
        )
        for entry in plan["segments"]
    ] + [
        Task(
            entry["run_id"],
            ledger.folder(entry["run_id"]),
            entry["config"],
            tuple(entry["depends_on"]),
            False,
            entry["own_exact_flops"],
            entry["branch_flops"],
        )
        for entry in plan["runs"]
    ]
    return sorted(
        tasks, key=lambda t: (t.config_values["budget"], not t.is_segment, -t.exact_flops)
    )


@dataclass
class Queue:
    """What is left of a plan for one launch, as the ledger tells it.

    With `only` a worker does these tasks alone. One that needs another task, which is not done and
    which nobody works on, is given up after `PATIENCE_S`.
    """

    tasks: list[Task]
    ledger: Ledger
    launch_id: str
    launch_folder: Path | None = None  # where `cancel` leaves word
    only: frozenset[str] | None = None

    def __post_init__(self) -> None:
        self._done: set[str] = set()
        self._failed: set[str] = set()
        self._cancelled: frozenset[str] = frozenset()
        self._looked = -math.inf
        self._alone_since: dict[str, float] = {}  # tasks that wait for what nobody works on

    def refresh(self) -> None:
        """Look at every task that has not ended yet."""
        for task in self.tasks:
            if task.task_id in self._done or task.task_id in self._failed:
                continue
            if task.finished(self.ledger):
                self._done.add(task.task_id)
            elif (
                task.failed(self.launch_id)
                or self._failed & set(task.depends_on)
                or self.cancelled(task)
            ):
                self._failed.add(task.task_id)
        if self.only is not None:
            self._give_up(self.only)

    def fail(self, task: Task) -> None:
        """Not to be tried again in this launch, also where its status could not be written."""
        self._failed.add(task.task_id)

    def _give_up(self, only: frozenset[str]) -> None:
        now, by_id = time.monotonic(), {task.task_id: task for task in self.tasks}
        for task in self.open():
            missing = set(task.depends_on) - self._done - only
            if missing and not any(by_id[name].claimed(self.ledger) for name in missing):
                since = self._alone_since.setdefault(task.task_id, now)
                if now - since > PATIENCE_S:
                    log.error("%s: needs %s, which is not done", task.task_id, *missing)
                    self._failed.add(task.task_id)
            else:
                self._alone_since.pop(task.task_id, None)

    def cancelled(self, task: Task, at_once: bool = False) -> bool:
        """Whether `python -m sweeps cancel` has named the task; looked up once in a second."""
        due = at_once or time.monotonic() - self._looked > LOOK_S
        if self.launch_folder and due:
            self._cancelled = read_cancelled(self.launch_folder)
            self._looked = time.monotonic()
        return task.task_id in self._cancelled

    def open(self) -> list[Task]:
        """Tasks that have neither ended nor lost a task that they need."""
        ended = self._done | self._failed
        wanted = self._needed() if self.only is None else self._needed() & self.only
        return [t for t in self.tasks if t.task_id not in ended and t.task_id in wanted]

    def unsuccessful(self) -> list[Task]:
        """Tasks of this worker that are open, failed or diverged."""
        bad = {task.task_id for task in self.open()} | self._failed
        return [
            task
            for task in self.tasks
            if (self.only is None or task.task_id in self.only)
            and (
                task.task_id in bad
                or (not task.is_segment and self.ledger.state(task.folder.run_id) == "diverged")
            )
        ]

    def ready(self) -> list[Task]:
        """Open tasks whose dependencies are done, in the order in which to take them."""
        return [task for task in self.open() if self._done.issuperset(task.depends_on)]

    def _needed(self) -> set[str]:
        """Runs that are not done, and the segments that lead to them."""
        by_id = {task.task_id: task for task in self.tasks}
        waiting = [
            task.task_id
            for task in self.tasks
            if not task.is_segment and task.task_id not in self._done
        ]
        needed: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                if name not in self._done:
                    waiting.extend(by_id[name].depends_on)
        return needed
