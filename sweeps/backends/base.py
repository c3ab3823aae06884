"""What a backend is: the verbs through which everything else asks about jobs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ledger.errors import UserError
from ledger.jobs import NO_JOB, Job, JobRun
from ledger.store import Ledger
from mor.config import Config
from sweeps.config import ClusterConfig, SweepConfig
from sweeps.plan import Plan

WARNING_SIGNAL = "SIGUSR2"  # sent by a scheduler before a time limit and at a preemption


class BackendSilent(Exception):
    """A scheduler failed or did not answer in time: nothing is known of its jobs."""


class LaunchFailed(UserError):
    """Some runs of a launch did not end well; each was reported with its log."""


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits or runs. Times are seconds since 1970."""

    job_id: str
    state: str  # in the scheduler's own terms
    reason: str  # why it waits, in the scheduler's own terms
    node: str
    starts: float | None = None  # when it began, or is expected to
    left_s: float | None = None  # of its wall time
    waiting: bool = False  # in the queue
    held: bool = False  # in the queue, and not to start by itself
    ending: bool = False  # it takes no further task


@dataclass(frozen=True)
class Submission:
    """A plan that is to be carried out, priced for its backend."""

    plan: Plan
    ledger: Ledger
    study: SweepConfig
    console: Console


@dataclass(frozen=True)
class Measurements:
    """Configurations whose speed is to be measured, one of each model and size."""

    configs: list[Config]
    seconds: float
    runs_dir: Path
    study: SweepConfig
    console: Console


class Backend(ABC):
    """Where the tasks of a plan run. A backend without a queue needs the first three only."""

    name: str  # as launch.mode has it

    @abstractmethod
    def present(self) -> bool:
        """Whether this machine can use it."""

    @abstractmethod
    def prepare(self, study: SweepConfig, configs: list[Config]) -> ClusterConfig:
        """What a plan is priced on. Raises UserError for runs that it cannot train."""

    @abstractmethod
    def submit(self, submission: Submission) -> None:
        """Carry a plan out, or hand it to a scheduler. Raises UserError, LaunchFailed."""

    def measure(self, asked: Measurements) -> None:
        """Measure how fast some configurations train where a launch would train them, and keep it
        in the store. What cannot be measured is said and left out."""
        asked.console.print(f"launch={self.name}: measures no speeds; prices are as they were")

    def owns(self, job_id: str) -> bool:
        """Whether a job id is one of this backend's."""
        return False

    def jobs(self, job_ids: Iterable[str]) -> dict[str, QueuedJob]:
        """The jobs that wait or run, by id. Raises BackendSilent."""
        return {}

    def history(self, job_ids: Iterable[str]) -> dict[str, list[JobRun]] | None:
        """Each time that jobs ran, by id, oldest first; None where no history is kept."""
        return None

    def cancel(self, job_ids: Iterable[str]) -> None:
        """End jobs; what runs may write a checkpoint first. Raises BackendSilent."""
        return

    def this_job(self) -> Job:
        """The job that this process is part of."""
        return NO_JOB

    def seconds_left(self) -> float | None:
        """Wall time that is left to the job of this process; None: no limit, or unknown."""
        return None

    def explain(self, reason: str, run: str, job_id: str) -> str:
        """Why a job waits, as a sentence that says what to do about it."""
        return reason
