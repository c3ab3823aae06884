"""What Slurm says of many jobs, in one call each: `queue` asks squeue, `history` asks sacct.

submitit reads states job by job, stops at the first word and takes NODE_FAIL, SUSPENDED and
REQUEUE_HOLD for done; here a state is Slurm's own word, and a job that was requeued has an entry
for each time it ran. A job id is the array's with the element's index, as in "123_0".
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from ledger.jobs import Job, JobRun
from sweeps.backends.base import BackendSilent, QueuedJob
from sweeps.backends.slurm import client

_QUEUE = "%i|%T|%r|%N|%S|%L|%P|%E"
_HISTORY = "JobID,State,Start,End,ExitCode,NodeList"


@dataclass(frozen=True)
class SlurmJob(QueuedJob):
    """A job of squeue, in its own states: PENDING, RUNNING, COMPLETING, REQUEUE_HOLD, ..."""

    partition: str = ""
    depends_on: str = ""


# The end of a worker by its job's last state; the states left out say nothing about it.
CAUSES = {
    "TIMEOUT": "time limit",
    "DEADLINE": "time limit",
    "PREEMPTED": "preempted",
    "REQUEUED": "requeued",
    "CANCELLED": "cancelled",
    "NODE_FAIL": "node failure",
    "BOOT_FAIL": "node failure",
    "OUT_OF_MEMORY": "out of memory",
}


def this_job() -> Job:
    """The Slurm job that this process is part of."""
    job_id, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        job_id = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return Job(job_id, int(os.environ.get("SLURM_RESTART_COUNT", 0)))


def present() -> bool:
    """Whether Slurm's client commands are on this machine."""
    return shutil.which("squeue") is not None


def queue(job_ids: Iterable[str]) -> dict[str, SlurmJob]:
    """The jobs among `job_ids` that wait or run, by id. Raises BackendSilent."""
    wanted = set(job_ids)
    if not wanted or not present():
        return {}
    command = ["squeue", "-h", "-r", "-j", ",".join(_arrays(wanted)), "-o", _QUEUE]
    ended = client.call(*command)
    if ended.returncode:
        if "Invalid job id" in ended.stderr:  # none of them is known any more
            return {}
        raise BackendSilent(_failure("squeue", ended))
    try:
        jobs = [_queued(line) for line in ended.stdout.splitlines() if line.strip()]
    except ValueError as error:  # an unknown job must not look like one that has left the queue
        raise BackendSilent(f"squeue: a line that cannot be read ({error})") from None
    return {job.job_id: job for job in jobs if job.job_id in wanted}


def history(job_ids: Iterable[str]) -> dict[str, list[JobRun]] | None:
    """Each time that the jobs ran, by id, oldest first; None where there is no accounting."""
    wanted = set(job_ids)
    if not wanted:
        return {}
    if shutil.which("sacct") is None:
        return None
    command = [
        *("sacct", "-n", "-P", "-X", "-D", "-j", ",".join(_arrays(wanted))),
        f"--format={_HISTORY}",
    ]
    try:
        ended = client.call(*command)
    except BackendSilent:
        return None
    if ended.returncode:
        return None
    found: dict[str, list[JobRun]] = {}
    for line in ended.stdout.splitlines():
        job = _job_run(line)
        if job is not None and job.job_id in wanted:
            found.setdefault(job.job_id, []).append(job)
    for jobs in found.values():
        jobs.sort(key=lambda job: (job.started is None, job.started or 0.0))
    return found


def cancel(job_ids: Iterable[str]) -> None:
    """scancel, in one call; what runs gets SIGTERM first. Raises BackendSilent."""
    ids = sorted(set(job_ids))
    if ids:
        ended = client.call("scancel", *ids)
        if ended.returncode:
            raise BackendSilent(_failure("scancel", ended))


def seconds_left() -> float | None:
    """Wall time that is left to the job of this process; None outside of Slurm or unknown."""
    job = this_job().job_id
    if job is None:
        return None
    try:
        found = queue([job]).get(job)
    except BackendSilent:
        return None
    return found.left_s if found else None


def _failure(command: str, ended: subprocess.CompletedProcess[str]) -> str:
    """One line: without a controller each step of looking for it is an error of its own."""
    said = client.reason(ended.stderr) if ended.stderr.strip() else None
    return f"{command}: {said or f'exit code {ended.returncode}'}"


def _arrays(job_ids: Iterable[str]) -> list[str]:
    """Ids of whole arrays: a thousand elements make one argument."""
    return sorted({job_id.split("_")[0] for job_id in job_ids})


def _queued(line: str) -> SlurmJob:
    job_id, state, reason, node, starts, left, partition, depends_on = line.split("|", 7)
    return SlurmJob(
        job_id,
        state,
        reason,
        node,
        _time(starts),
        client.seconds(left),
        waiting=state == "PENDING",
        held=state == "REQUEUE_HOLD",
        ending=state == "COMPLETING",
        partition=partition,
        depends_on="" if depends_on == "(null)" else depends_on,
    )


def _job_run(line: str) -> JobRun | None:
    """One line of sacct; None for one of another form, which says nothing about a job."""
    if line.count("|") < 5:
        return None
    job_id, state, started, ended, exit_code, _ = line.split("|", 5)
    return job_run(job_id, state, _time(started), _time(ended), exit_code)


def job_run(
    job_id: str, state: str, started: float | None, ended: float | None, exit_code: str
) -> JobRun:
    """One line of sacct as the ledger understands it."""
    state = state.split()[0] if state else ""  # "CANCELLED by 1000"
    words = f"its job ended as {state} (exit code {exit_code})"
    return JobRun(job_id, started, ended, CAUSES.get(state), words)


def _time(text: str) -> float | None:
    return float(text) if text.isdigit() else None  # else Unknown, None, N/A
