"""`retry` and `launch`: run again what has ended early, from the study's saved plan, through the
same launch as the first time. Nothing that is done, running or queued is touched."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from ledger.ids import folder_of
from mor.train.divergence import clear_diverged
from sweeps.study import kept_settings, launch_configs
from sweeps.tasks import Task
from sweeps.watch import Look, Row, StudyView

LEFT_ALONE = ("done", "running", "pending")
ON_REQUEST = ("failed", "cancelled", "disk full", "out of memory")  # `launch` without --retry


def runs_to_retry(
    look: Look, task: Task | None, *, failed: bool, diverged: bool
) -> tuple[list[str], list[str]]:
    """Ids of the runs to launch again, and of those left out because they diverged.

    `task`: of a whole study, or the one run (or all runs on the one trunk) that was named.
    """
    every = [*look.rows, *look.evaluations]
    rows = [row for row in every if task is None or _belongs(row, task)]
    segments = {row.name: row for row in look.segments}
    chosen, kept_out = [], []
    for row in rows:
        if row.state in LEFT_ALONE or _requeued(row, segments):
            continue
        if row.state == "diverged" and not diverged:
            kept_out.append(row.name)
        elif failed or row.state not in ON_REQUEST:
            chosen.append(row.name)
    return chosen, kept_out


def damaged_aside(view: StudyView, task: Task) -> bool:
    """Whether the final weights of a run that was named were damaged: they are set aside then, so
    that it is no longer done. Reads all of them: not what a launch does for every run."""
    if not task.is_run:
        return False
    claim = view.ledger.claim(task.folder.run_id)
    if not claim.acquire():
        return False
    try:
        return task.folder.set_damaged_final_aside()
    finally:
        claim.release()


def _requeued(row: Row, segments: dict[str, Row]) -> bool:
    """Preempted, and its job waits to start again: nothing to do by hand."""
    return row.state == "preempted" and row.reason is not None


def _belongs(row: Row, task: Task) -> bool:
    if not task.is_segment:
        return row.name == task.task_id or (task.is_run and folder_of(row.name) == task.task_id)
    return bool(row.trunk) and row.trunk == task.folder.run_id


def launch_again(view: StudyView, run_ids: Collection[str], diverged: bool) -> None:
    """Launch runs of a study's plan once more, under the settings of its newest launch.

    Raises UserError where the launch is refused, LaunchFailed where runs failed.
    """
    settings = kept_settings(view.folder)
    settings = dataclasses.replace(settings, runs_dir=str(view.ledger.runs_dir))
    chosen = [task for task in view.tasks if task.task_id in run_ids]
    if diverged:
        for task in chosen:
            for folder in (task.folder, task.trunk(view.ledger)):
                if folder is not None:
                    clear_diverged(folder)
    scored = [task for task in chosen if task.is_evaluation]  # also of an earlier launch
    launch_configs(settings, [task.config for task in chosen], scored)
