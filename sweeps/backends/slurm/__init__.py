"""Slurm: nothing outside this package knows its commands, its variables or its words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ledger.jobs import Job, JobRun
from mor.config import Config
from sweeps.backends.base import Backend, Measurements, QueuedJob, Submission
from sweeps.backends.slurm import queue, reasons
from sweeps.config import ClusterConfig, SweepConfig


class Slurm(Backend):
    """A plan as arrays of jobs with dependencies, submitted in a moment."""

    name = "slurm"

    def present(self) -> bool:
        return queue.present()

    def prepare(self, study: SweepConfig, configs: list[Config]) -> ClusterConfig:
        return study.cluster

    def submit(self, submission: Submission) -> None:
        from sweeps.backends.slurm.submit import submit_plan  # submitit takes a while

        submit_plan(submission)

    def measure(self, asked: Measurements) -> None:
        from sweeps.backends.slurm.measure import measure_there

        measure_there(asked)

    def owns(self, job_id: str) -> bool:
        return re.fullmatch(r"\d+(_\d+)?", job_id) is not None

    def jobs(self, job_ids: Iterable[str]) -> dict[str, QueuedJob]:
        return dict(queue.queue(job_ids))

    def history(self, job_ids: Iterable[str]) -> dict[str, list[JobRun]] | None:
        return queue.history(job_ids)

    def cancel(self, job_ids: Iterable[str]) -> None:
        queue.cancel(job_ids)

    def this_job(self) -> Job:
        return queue.this_job()

    def seconds_left(self) -> float | None:
        return queue.seconds_left()

    def explain(self, reason: str, run: str, job_id: str) -> str:
        return reasons.why_waiting(reason, run, job_id)
