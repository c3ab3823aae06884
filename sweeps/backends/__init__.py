"""The backends by name, and questions that are asked of whichever backend a job belongs to."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ledger.jobs import NO_JOB, Job, JobRun

if TYPE_CHECKING:
    from sweeps.backends.base import Backend, QueuedJob

# imported when they are asked for; the first one that is present is launch.mode=auto
_REGISTERED: dict[str, str | Callable[[], Backend]] = {
    "slurm": "sweeps.backends.slurm:Slurm",
    "local": "sweeps.backends.local:Local",
}
_made: dict[str, Backend] = {}


def register(name: str, make: Callable[[], Backend]) -> None:
    """Add a backend: launch.mode=<name> submits to it."""
    _REGISTERED[name] = make
    _made.pop(name, None)


def names() -> list[str]:
    return sorted(_REGISTERED)


def backend(name: str) -> Backend:
    """A backend by its name; `auto` is the first one that is present on this machine."""
    if name == "auto":
        return next(found for found in map(backend, _REGISTERED) if found.present())
    if name not in _made:
        make = _REGISTERED[name]
        if isinstance(make, str):
            module, _, attribute = make.partition(":")
            make = getattr(importlib.import_module(module), attribute)
        _made[name] = make()
    return _made[name]


def _all() -> list[Backend]:
    return [backend(name) for name in _REGISTERED]


def _asked(job_ids: Iterable[str]) -> list[tuple[Backend, set[str]]]:
    """The backends that own some of the jobs, with those."""
    wanted = set(job_ids)
    owned = ((found, {one for one in wanted if found.owns(one)}) for found in _all())
    return [(found, ids) for found, ids in owned if ids]


def jobs(job_ids: Iterable[str]) -> dict[str, QueuedJob]:
    """The jobs that wait or run, by id. Raises BackendSilent."""
    return {name: job for found, ids in _asked(job_ids) for name, job in found.jobs(ids).items()}


def history(job_ids: Iterable[str]) -> dict[str, list[JobRun]] | None:
    """Each time that jobs ran, by id; None where the backend of one keeps no history."""
    known: dict[str, list[JobRun]] = {}
    for found, ids in _asked(job_ids):
        runs = found.history(ids)
        if runs is None:
            return None
        known.update(runs)
    return known


def cancel(job_ids: Iterable[str]) -> None:
    """End jobs. Raises BackendSilent."""
    for found, ids in _asked(job_ids):
        found.cancel(ids)


def can_ask(job_id: str) -> bool:
    """Whether this machine can ask the backend of a job about it."""
    return any(found.owns(job_id) and found.present() for found in _all())


def explain(reason: str, run: str, job_id: str) -> str:
    """Why a job waits, as a sentence."""
    for found, _ in _asked([job_id]):
        return found.explain(reason, run, job_id)
    return reason


def this_job() -> Job:
    """The job that this process is part of, of whichever backend started it."""
    found = (one.this_job() for one in _all())
    return next((job for job in found if job.job_id is not None), NO_JOB)


def seconds_left() -> float | None:
    """Wall time that is left to the job of this process; None: no job, or unknown."""
    job_id = this_job().job_id
    return next((found.seconds_left() for found, _ in _asked([job_id] if job_id else [])), None)
