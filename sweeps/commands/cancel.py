"""`cancel`: stop a study or a run. What runs writes a checkpoint first; `retry` takes it up."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sweeps import backends
from sweeps.backends.submitted import elements
from sweeps.tasks import Task, TaskGraph
from sweeps.watch import StudyView


@dataclass(frozen=True)
class Cancelled:
    """What `cancel` has done."""

    tasks: tuple[str, ...]  # that are left alone now
    jobs: tuple[str, ...]  # of a scheduler, that were ended
    workers: tuple[int, ...]  # processes of this machine that were asked to stop
    elsewhere: tuple[str, ...] = ()  # tasks that go on: no launch of this study trains them


def cancel_study(view: StudyView) -> Cancelled:
    """Cancel all that is not done. Raises BackendSilent where Slurm does not take it."""
    return _cancel(view, [task for task in view.tasks if not task.finished(view.ledger)])


def cancel_run(view: StudyView, task: Task) -> Cancelled:
    """Cancel one run with its evaluations and the trunk segments that no other unfinished run
    needs, or a segment with all that depends on it. Raises BackendSilent."""
    left = [other for other in view.tasks if not other.finished(view.ledger)]
    chosen = TaskGraph(left).after([task.task_id])
    kept = [t.task_id for t in left if not t.is_segment and t.task_id not in chosen]
    graph = view.tasks
    chosen |= graph.before(chosen) - graph.before(kept)
    return _cancel(view, [other for other in left if other.task_id in chosen])


def _cancel(view: StudyView, tasks: list[Task]) -> Cancelled:
    names = {task.task_id for task in tasks}
    for launch in view.folder.launches():
        launch.cancel(names)
    held = elements(view.folder)
    live = backends.jobs(element.job_id for element in held)
    others = {task.task_id for task in view.tasks if not task.finished(view.ledger)} - names
    jobs = {
        element.job_id
        for element in held
        if element.job_id in live and set(element.tasks) & names and not set(element.tasks) & others
    }
    backends.cancel(jobs)
    whole = not others  # else the workers have other runs to go on with
    running = [(task, status) for task in tasks if (status := _running(view, task))]
    launches = {launch.launch_id for launch in view.folder.launches()}
    ours = [status for _, status in running if status.get("launch_id") in launches]
    workers = _stop_workers(ours) if whole else []
    elsewhere = [
        task.task_id
        for task, status in running
        if status not in ours and status.get("task_id") == task.task_id
    ]
    return Cancelled(tuple(sorted(names)), tuple(sorted(jobs)), tuple(workers), tuple(elsewhere))


def _running(view: StudyView, task: Task) -> dict[str, Any] | None:
    """The status of a task's folder, where a live process trains in it."""
    status = task.folder.status() or {}
    return status if status.get("state") == "running" and task.claimed(view.ledger) else None


def _stop_workers(statuses: Iterable[dict[str, Any]]) -> list[int]:
    """SIGTERM to those of the processes that are on this machine and of no job."""
    stopped = []
    for status in statuses:
        if status.get("host") == socket.gethostname() and not status.get("job_id"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(status["pid"]), signal.SIGTERM)
                stopped.append(int(status["pid"]))
    return sorted(set(stopped))
