"""Writing down which job runs which tasks, as jobs are submitted (`sweeps.submitted` reads it), and
which tasks need no job because one is in the queue."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

from ledger.errors import UserError
from ledger.files import write_json
from sweeps.launch.files import Launch
from sweeps.launch.jobs import Array
from sweeps.slurm_queue import SlurmSilent, queue
from sweeps.submitted import elements
from sweeps.tasks import read_cancelled

NAME = "jobs.json"


class Record:
    """The jobs of one launch; the file is whole after each submission."""

    def __init__(self, launch: Launch, runs_dir: Path, code: dict[str, Any]) -> None:
        self._file = launch.folder / NAME
        self._values: dict[str, Any] = {
            "launch_id": launch.launch_id,
            "submitted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "runs_dir": str(runs_dir),
            "code": code,
            "arrays": [],
        }

    def add(self, array: Array, timeout_min: int) -> None:
        """Write down an array that Slurm has taken."""
        self._values["arrays"].append(
            {
                "array_id": array.array_id,
                "shape": {**dataclasses.asdict(array.shape), "timeout_min": timeout_min},
                "depends_on": array.dependency(),
                "elements": [
                    {"index": i, "job_id": array.job_id(i), "tasks": list(unit.tasks)}
                    for i, unit in enumerate(array.units)
                ],
            }
        )
        write_json(self._file, self._values)


def queued_tasks(studies_dir: Path, runs_dir: Path) -> dict[str, str]:
    """Task id -> id of the job that was submitted for it, of those that wait or run.

    Of all studies, because a run belongs to the run store and not to a study; without the tasks
    that their launch was told to leave alone. Raises UserError where Slurm does not answer.
    """
    submitted = [
        element
        for launches in sorted(studies_dir.glob("*/launches"))
        for element in elements(launches.parent)
        if element.runs_dir == str(runs_dir)
    ]
    try:
        jobs = queue(element.job_id for element in submitted)
    except SlurmSilent as silence:
        raise UserError(
            f"launch=slurm: squeue does not answer ({silence}); try again when it does"
        ) from None
    alive = {job_id for job_id, job in jobs.items() if job.state != "COMPLETING"}
    return {
        task: element.job_id
        for element in submitted
        if element.job_id in alive
        for task in set(element.tasks) - read_cancelled(element.launch_folder)
    }
