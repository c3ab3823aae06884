"""How each attempt at a run ended: `runs/<run_id>/attempts.jsonl`, one line for each.

A line is opened when a worker begins and closed by it with the cause of its end. A worker that
exits without reporting a cause leaves it open: the next attempt closes it, or
`python -m sweeps status` does, with what the backend knows about the job. Lines have one width, so
that an end is written over the spaces that its begin has reserved: also on a disk that is full by
then.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.files import locked
from ledger.jobs import NO_JOB, Job, JobRun

WIDTH = 768  # bytes of a line
NOTE = 200  # characters of a note at most

CAUSES = (
    "finished",
    "stopped",  # by a signal; the note names it
    "time limit",
    "preempted",
    "requeued",
    "cancelled",
    "killed",  # it exited without reporting a cause, and nothing else says why
    "node failure",
    "process lost",  # another process of its job ended, or went silent
    "out of memory",
    "failed",  # an error; the note has it
    "diverged",
    "disk full",
    "lost claim",  # another process took the run over
)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a task. Times are seconds since 1970."""

    attempt: int
    task_id: str
    launch_id: str
    started: float
    host: str
    pid: int
    job_id: str | None = None  # the backend's, as "123_0" for an element of a Slurm array
    devices: int = 1  # GPUs, or CPU threads where there is none
    on_gpu: bool = False
    ended: float | None = None
    cause: str | None = None
    note: str | None = None
    settled: bool = False  # nothing more can be learnt about its end

    def hours(self, now: float) -> float:
        """Device-hours that it held."""
        end = now if self.ended is None else self.ended
        return max(0.0, end - self.started) / 3600 * self.devices


class AttemptLog:
    """The attempts at one run or trunk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "attempts.jsonl"
        self._lock = folder / ".attempts.lock"

    def read(self) -> list[Attempt]:
        """All attempts, oldest first; a line that is torn or damaged is left out."""
        try:
            data = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = [_parse(data[i : i + WIDTH]) for i in range(0, len(data), WIDTH)]
        return [a for place, a in enumerate(found, 1) if a is not None and a.attempt == place]

    def begin(
        self,
        task_id: str,
        launch_id: str,
        devices: int,
        on_gpu: bool,
        job: Job = NO_JOB,
    ) -> int:
        """Open a line for this process and return its number, from 1.

        The caller holds the run's claim, so any other open attempt belongs to a process that was
        killed: `settle` closes it.
        Raises OSError on a full disk.
        """
        with locked(self._lock):
            before = self.read()
            number = max((a.attempt for a in before), default=0) + 1
            attempt = Attempt(
                number,
                task_id,
                launch_id,
                time.time(),
                socket.gethostname(),
                os.getpid(),
                job.job_id,
                devices,
                on_gpu,
            )
            self._write(attempt)
        return number

    def end(self, number: int, cause: str, note: str | None = None) -> None:
        """Close this process's own line."""
        with locked(self._lock):
            for attempt in self.read():
                if attempt.attempt == number:
                    open_to_backend = (
                        cause in ("stopped", "time limit", "preempted") and attempt.job_id
                    )
                    self._write(
                        dataclasses.replace(
                            attempt,
                            ended=time.time(),
                            cause=cause,
                            note=note,
                            settled=not open_to_backend,
                        )
                    )

    def settle(
        self,
        attempts: Sequence[Attempt],
        living: bool,
        heartbeat: float | None = None,
        known: Mapping[str, Sequence[JobRun]] | None = None,
    ) -> list[Attempt]:
        """Write what `learnt` finds; returns all attempts. Raises OSError where that cannot be."""
        found = learnt(attempts, living, heartbeat, known)
        changed = {a.attempt: a for a, before in zip(found, attempts, strict=True) if a != before}
        if changed:
            with locked(self._lock):
                for attempt in self.read():
                    if attempt.attempt in changed and not attempt.settled:
                        self._write(changed[attempt.attempt])
        return found

    def _write(self, attempt: Attempt) -> None:
        note = attempt.note[:NOTE] if attempt.note else attempt.note
        text = json.dumps({**vars(attempt), "note": note}).encode()
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.pwrite(handle, text.ljust(WIDTH - 1) + b"\n", (attempt.attempt - 1) * WIDTH)
            os.fsync(handle)
        finally:
            os.close(handle)


def unsettled(attempts: Sequence[Attempt], living: bool) -> list[Attempt]:
    """Attempts about whose end more may be learnt."""
    ended = attempts[:-1] if living else attempts
    return [attempt for attempt in ended if not attempt.settled]


def learnt(
    attempts: Sequence[Attempt],
    living: bool,
    heartbeat: float | None = None,
    known: Mapping[str, Sequence[JobRun]] | None = None,
) -> list[Attempt]:
    """All attempts, with what can be learnt about ends that are not settled.

    `living`: the last attempt is still going on. `heartbeat`: the last sign of its life.
    `known`: what a backend says of their jobs, by id; None where it keeps no history.
    """
    found = {attempt.attempt: attempt for attempt in attempts}
    for attempt in unsettled(attempts, living):
        job = attempt.job_id
        jobs = None if job is None or known is None else known.get(job, ())
        beat = heartbeat if attempt is attempts[-1] else None
        found[attempt.attempt] = settled(attempt, jobs, beat)
    return list(found.values())


def jobs_of(attempts: Iterable[Attempt]) -> set[str]:
    """The jobs that a backend is to be asked about."""
    return {attempt.job_id for attempt in attempts if attempt.job_id}


def settled(
    attempt: Attempt, runs: Sequence[JobRun] | None, heartbeat: float | None = None
) -> Attempt:
    """An ended attempt with what a backend says of its job; None where nothing can be asked."""
    job = _within(attempt, runs or ())
    if job is not None and job.ended is not None and job.cause is not None:
        cause = job.cause
        if cause == "requeued" and attempt.cause in ("time limit", "preempted"):
            cause = attempt.cause  # it has requeued itself after the scheduler's warning
        ended = attempt.ended or job.ended
        return dataclasses.replace(attempt, ended=ended, cause=cause, settled=True)
    if attempt.cause is not None:  # the backend has not said more, or not yet
        known = runs is None or (job is not None and job.ended is not None)
        return dataclasses.replace(attempt, settled=known)
    last = max(attempt.started, heartbeat or attempt.started)
    if runs is None:
        return dataclasses.replace(attempt, ended=last, cause="killed", settled=True)
    if job is None or job.ended is None:  # its history is late, or the job still ends: ask again
        return dataclasses.replace(attempt, ended=last, cause="killed")
    return dataclasses.replace(
        attempt, ended=job.ended, cause="killed", note=job.words, settled=True
    )


def _within(attempt: Attempt, runs: Sequence[JobRun]) -> JobRun | None:
    """The run of a job (a requeue makes another) that an attempt was in."""
    ran = sorted((job for job in runs if job.started is not None), key=lambda j: j.started or 0.0)
    begun = [job for job in ran if (job.started or 0.0) <= attempt.started]
    if begun:
        return begun[-1]
    # a scheduler may lose the start of a run that it ended at once; and clocks differ a little
    lost = [job for job in runs if job.started is None and (job.ended or 0.0) >= attempt.started]
    return next(iter([*lost, *ran]), None)


def _parse(line: bytes) -> Attempt | None:
    try:
        return Attempt(**json.loads(line))
    except (ValueError, TypeError):
        return None
