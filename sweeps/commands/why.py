"""`why`: what a run waits for or ended, in words."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from ledger.attempts import Attempt, AttemptLog
from sweeps import backends
from sweeps.backends.submitted import by_task, elements
from sweeps.causes import why_ended
from sweeps.tables import duration, share
from sweeps.tasks import Task
from sweeps.watch import OPEN, Row, StudyView

TAIL = 8  # lines of a log
ACTIVE = ("running", "pending", "preempted")  # a worker runs the study, or will


def explain(view: StudyView, task: Task) -> Iterator[str]:
    """The state of a task, what that means, its attempts, and the last lines of its log."""
    look = view.look()
    rows = {row.name: row for row in [*look.rows, *look.segments, *look.evaluations]}
    row = rows.get(task.task_id)
    if row is None:
        yield f"{task.task_id}: done"
        return
    job = f", job {row.job_id}" if row.job_id else ""
    yield f"{row.name}: {row.state}{job}"
    yield from _reason(row, task, rows)
    yield from look.notes
    attempts = look.attempts.get(task.task_id) or AttemptLog(task.folder.path).read()
    attempts = [a for a in attempts if a.task_id == task.task_id]
    if attempts:
        yield ""
        yield from map(_line, range(1, len(attempts) + 1), attempts)
    if row.state not in ("done", "running"):
        yield from _tails(view, task, job=row.state not in ("pending", "planned"))


def _reason(row: Row, task: Task, rows: dict[str, Row]) -> Iterator[str]:
    queued = row.state in ("pending", "preempted")
    if row.last_cause not in (None, "finished") and row.state != "done":
        yield why_ended(row.last_cause or "", row.error, row.name, queued or row.state == "running")
    if row.state == "running":
        yield f"it runs on {row.node}, {share(row.spent, row.target)} of its budget is spent"
    elif queued and row.reason:
        yield backends.explain(row.reason, row.name, row.job_id or "")
    elif row.state == "pending":
        yield "its job runs, and other runs of the same job come first"
    elif row.state in ("failed", "diverged") and not row.attempts:
        yield f"its trunk {row.state}; type python -m sweeps why {task.depends_on[0]}"
    elif row.state == "cancelled" and not row.attempts:
        yield f"it was cancelled before it began; python -m sweeps retry {row.name} starts it"
    elif row.state == "planned":
        before = rows.get(task.depends_on[0]) if task.depends_on else None
        if row.job_id:
            yield f"its job has ended without it; python -m sweeps retry {row.name} goes on"
        elif not any(other.state in ACTIVE for other in rows.values()):
            yield "nothing works on its study now; it goes on when the study is launched again"
        elif before is not None and before.state in OPEN:
            yield f"it waits for its trunk segment {before.name}, which is {before.state}"
        else:
            yield "no worker has taken it; it goes on when the study is launched again"


def _line(number: int, attempt: Attempt) -> str:
    """`number`: among the attempts at this task; its folder counts those at others, too."""
    began = datetime.datetime.fromtimestamp(attempt.started).isoformat(" ", "seconds")
    job = f" job {attempt.job_id}" if attempt.job_id else ""
    end = "running"
    if attempt.cause:
        took = ((attempt.ended or attempt.started) - attempt.started) / 3600
        end = f"{attempt.cause} after {duration(took)}"
    note = f" ({attempt.note})" if attempt.note else ""
    return f"attempt {number}  {began}  {attempt.host}{job}  {end}{note}"


def _tails(view: StudyView, task: Task, job: bool) -> Iterator[str]:
    """The last lines of the run's log and, with `job`, of what its job printed."""
    files = [task.folder.log_file]
    held = by_task(elements(view.folder)).get(task.task_id, [])
    files += held[0].logs if held and job else []
    for file in files:
        if file.exists() and file.stat().st_size:
            yield f"\n{file}:"
            lines = file.read_text(errors="replace").splitlines()[-TAIL:]
            yield from (f"    {line}" for line in lines)
