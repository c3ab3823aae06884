"""`cancel`: stop a study or a run. What runs writes a checkpoint first; `retry` takes it up."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from sweeps import slurm_queue
from sweeps.submitted import elements
from sweeps.tasks import Task, cancel_tasks
from sweeps.watch import StudyView


@dataclass(frozen=True)
class Cancelled:
    """What `cancel` has done."""

    tasks: tuple[str, ...]  # that are left alone now
    jobs: tuple[str, ...]  # of Slurm, that were ended
    workers: tuple[int, ...]  # processes of this machine that were asked to stop


def cancel_study(view: StudyView) -> Cancelled:
    """Cancel all that is not done. Raises SlurmSilent where Slurm does not take it."""
    return _cancel(view, [task for task in view.tasks if not task.finished(view.ledger)])


def cancel_run(view: StudyView, task: Task) -> Cancelled:
    """Cancel one run and the trunk segments that no other unfinished run needs, or a segment with
    all that hangs on it. Raises SlurmSilent."""
    left = [other for other in view.tasks if not other.finished(view.ledger)]
    chosen = _hanging_on(task.task_id, left) if task.is_segment else {task.task_id}
    by_id = {other.task_id: other for other in view.tasks}
    kept = [other for other in left if not other.is_segment and other.task_id not in chosen]
    mine = [other for other in left if other.task_id in chosen]
    chosen |= _needed(mine, by_id) - _needed(kept, by_id)
    return _cancel(view, [other for other in left if other.task_id in chosen])


def _needed(tasks: Iterable[Task], by_id: dict[str, Task]) -> set[str]:
    """Ids of all that some tasks depend on, back to the start of their trunks."""
    waiting = [name for task in tasks for name in task.depends_on]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(by_id[name].depends_on)
    return found


def _hanging_on(name: str, tasks: list[Task]) -> set[str]:
    found, grown = {name}, True
    while grown:
        more = {task.task_id for task in tasks if set(task.depends_on) & found} - found
        grown = bool(more)
        found |= more
    return found


def _cancel(view: StudyView, tasks: list[Task]) -> Cancelled:
    names = {task.task_id for task in tasks}
    launches = [path for path in (view.folder / "launches").glob("*") if path.is_dir()]
    for launch in launches:
        cancel_tasks(launch, names)
    held = elements(view.folder)
    live = slurm_queue.queue(element.job_id for element in held)
    others = {task.task_id for task in view.tasks if not task.finished(view.ledger)} - names
    jobs = {
        element.job_id
        for element in held
        if element.job_id in live and set(element.tasks) & names and not set(element.tasks) & others
    }
    slurm_queue.cancel(jobs)
    whole = not others  # else the workers have other runs to go on with
    workers = _stop_workers(view, tasks) if whole else []
    return Cancelled(tuple(sorted(names)), tuple(sorted(jobs)), tuple(workers))


def _stop_workers(view: StudyView, tasks: list[Task]) -> list[int]:
    """SIGTERM to the processes of this machine that have one of the tasks in hand."""
    stopped = []
    for task in tasks:
        status = task.folder.status() or {}
        here = status.get("host") == socket.gethostname() and not status.get("job_id")
        if status.get("state") == "running" and here and task.claimed(view.ledger):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(status["pid"]), signal.SIGTERM)
                stopped.append(int(status["pid"]))
    return sorted(set(stopped))
