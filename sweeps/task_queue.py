"""What is left of a plan for one worker: which tasks are open, ready, failed or cancelled."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ledger.plan_file import LaunchFolder, read_plan
from ledger.store import Ledger
from sweeps.tasks import Task, TaskGraph, tasks_of

log = logging.getLogger(__name__)

LOOK_S = 1.0  # between looks at what was cancelled
PATIENCE_S = 120.0  # a network file system may show a finished file that late
REMADE = 3  # times that a damaged checkpoint is made again for one task


def read_tasks(plan_file: Path, ledger: Ledger, only: Collection[str] | None = None) -> TaskGraph:
    """The tasks of a plan file that was written for workers; with `only`, those of the trunks and
    runs that these task ids belong to."""
    tasks = tasks_of(read_plan(plan_file), ledger)
    return tasks if only is None else tasks.chains_of(only)


@dataclass
class Queue:
    """What is left of a plan for one launch, by the ledger.

    With `only` a worker does these tasks alone. One that needs another task, which is not done and
    which no worker runs, is given up after `PATIENCE_S`.
    """

    tasks: TaskGraph
    ledger: Ledger
    launch_id: str
    launch: LaunchFolder | None = None  # where `cancel` names tasks
    only: frozenset[str] | None = None

    def __post_init__(self) -> None:
        self._done: set[str] = set()
        self._failed: set[str] = set()
        self._cancelled: frozenset[str] = frozenset()
        self._looked = -math.inf
        self._lost_starts: dict[str, int] = {}
        self._alone_since: dict[str, float] = {}  # tasks whose dependency no worker runs

    def refresh(self) -> None:
        """Look at every task that has not ended yet."""
        for task in self.tasks:
            if task.task_id in self._done or task.task_id in self._failed:
                continue
            if task.finished(self.ledger):
                self._done.add(task.task_id)
            elif (
                task.failed(self.launch_id)
                or self._failed & set(task.needs)
                or self.cancelled(task)
            ):
                self._failed.add(task.task_id)
        if self.only is not None:
            self._give_up(self.only)

    def fail(self, task: Task) -> None:
        """Not to be tried again in this launch, also where its status could not be written."""
        self._failed.add(task.task_id)

    def reopen(self, task_ids: Iterable[str]) -> None:
        """Tasks that were done and have lost what they had made."""
        self._done.difference_update(task_ids)

    def lost_start(self, task: Task) -> bool:
        """The checkpoint that a task starts from was damaged: the task that makes it is open again,
        and this one waits. False: that has happened `REMADE` times, something damages it each time.
        """
        self.reopen(task.depends_on)
        self._lost_starts[task.task_id] = self._lost_starts.get(task.task_id, 0) + 1
        return self._lost_starts[task.task_id] <= REMADE

    def _give_up(self, only: frozenset[str]) -> None:
        now = time.monotonic()
        for task in self.open():
            missing = set(task.needs) - self._done - only
            if missing and not any(self.tasks[name].claimed(self.ledger) for name in missing):
                since = self._alone_since.setdefault(task.task_id, now)
                if now - since > PATIENCE_S:
                    log.error("%s: needs %s, which is not done", task.task_id, *missing)
                    self._failed.add(task.task_id)
            else:
                self._alone_since.pop(task.task_id, None)

    def cancelled(self, task: Task, at_once: bool = False) -> bool:
        """Whether `python -m sweeps cancel` has named the task; looked up once in a second."""
        due = at_once or time.monotonic() - self._looked > LOOK_S
        if self.launch and due:
            self._cancelled = self.launch.cancelled()
            self._looked = time.monotonic()
        return task.task_id in self._cancelled

    def open(self) -> list[Task]:
        """Tasks that have neither ended nor lost a task that they need."""
        ended = self._done | self._failed
        wanted = self.tasks.needed(self._done)
        if self.only is not None:
            # the tasks that a preparation is for are not among those that its job looks at
            wanted |= {task.task_id for task in self.tasks if task.is_data}
            wanted &= self.only
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
                or (task.is_run and self.ledger.state(task.folder.run_id) == "diverged")
            )
        ]

    def ready(self) -> list[Task]:
        """Open tasks whose dependencies are done, in the order in which to take them."""
        return [task for task in self.open() if self._done.issuperset(task.needs)]
