"""What a backend reports to the ledger about jobs. The ledger itself knows no scheduler."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """The job of a scheduler that a process belongs to."""

    job_id: str | None = None  # None: no job, the process was started by a user
    restarts: int = 0  # how often the job was put back into the queue


NO_JOB = Job()


@dataclass(frozen=True)
class JobRun:
    """One time that a job ran, or waits to; a job that is requeued has several.

    Times are seconds since 1970.
    """

    job_id: str
    started: float | None
    ended: float | None
    cause: str | None  # of its end, one of `ledger.attempts.CAUSES`; None: it says nothing
    words: str = ""  # how it ended, in the scheduler's own terms
