"""What a study has submitted to a scheduler: `launches/<launch id>/jobs.json`.

{"launch_id": ..., "submitted": "<ISO time>", "runs_dir": "<the run store>", "code": {...},
 "arrays": [{"array_id": "123", "shape": {...}, "depends_on": "aftercorr:120" or null,
             "elements": [{"index": 0, "job_id": "123_0", "tasks": ["<task id>", ...]}]}]}
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.errors import UserError
from ledger.files import write_json
from ledger.plan_file import LaunchFolder, StudyFolder
from sweeps import backends
from sweeps.backends.base import BackendSilent


@dataclass(frozen=True)
class Element:
    """An array element, or a job of its own, and the tasks that it was given."""

    job_id: str
    tasks: tuple[str, ...]
    launch: LaunchFolder
    runs_dir: str | None = None  # the run store that its tasks write to

    @property
    def logs(self) -> list[Path]:
        """What the job itself has printed, as submitit names the files."""
        folder = self.launch.workers
        found = [*folder.rglob(f"{self.job_id}_*_log.err"), *folder.rglob(f"{self.job_id}_*.out")]
        return sorted(found)


def elements(study: StudyFolder) -> list[Element]:
    """Everything that a study has submitted, oldest first."""
    found = []
    for launch in study.launches():
        try:
            values = json.loads(launch.jobs_file.read_text())
            runs_dir = values.get("runs_dir")
            found += [
                Element(str(element["job_id"]), tuple(element["tasks"]), launch, runs_dir)
                for array in values["arrays"]
                for element in array["elements"]
            ]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # cut off while it was written: its tasks count as not submitted
    return found


def by_task(submitted: Iterable[Element]) -> dict[str, list[Element]]:
    """The elements that hold each task, newest first."""
    found: dict[str, list[Element]] = {}
    for element in submitted:
        for task in element.tasks:
            found.setdefault(task, []).insert(0, element)
    return found


class Record:
    """Writes `jobs.json` of one launch; the file is complete after each submission."""

    def __init__(self, launch: LaunchFolder, runs_dir: Path, code: dict[str, Any]) -> None:
        self._file = launch.jobs_file
        self._values: dict[str, Any] = {
            "launch_id": launch.launch_id,
            "submitted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "runs_dir": str(runs_dir),
            "code": code,
            "arrays": [],
        }

    def add(
        self,
        array_id: str,
        shape: dict[str, Any],
        depends_on: str | None,
        jobs: Sequence[tuple[str, Sequence[str]]],
    ) -> None:
        """Note what a scheduler has taken: the id of each job and its tasks."""
        elements = [
            {"index": i, "job_id": job_id, "tasks": list(tasks)}
            for i, (job_id, tasks) in enumerate(jobs)
        ]
        array = {"array_id": array_id, "shape": shape, "depends_on": depends_on}
        self._values["arrays"].append({**array, "elements": elements})
        write_json(self._file, self._values)


def queued_tasks(studies_dir: Path, runs_dir: Path) -> dict[str, str]:
    """Task id -> id of the job that was submitted for it, of those that wait or run.

    Of all studies, because a run belongs to the run store and not to a study; without the tasks
    that their launch was asked to leave alone. Raises UserError where a scheduler does not answer.
    """
    submitted = [
        element
        for launches in sorted(studies_dir.glob("*/launches"))
        for element in elements(StudyFolder(launches.parent))
        if element.runs_dir == str(runs_dir)
    ]
    try:
        jobs = backends.jobs(element.job_id for element in submitted)
    except BackendSilent as silence:
        raise UserError(
            f"studies_dir={studies_dir}: the scheduler of its jobs does not answer ({silence}); "
            "try again when it does"
        ) from None
    alive = {job_id for job_id, job in jobs.items() if not job.ending}
    return {
        task: element.job_id
        for element in submitted
        if element.job_id in alive
        for task in set(element.tasks) - element.launch.cancelled()
    }
