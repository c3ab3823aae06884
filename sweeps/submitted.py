"""What a study has submitted to Slurm: `launches/<launch id>/jobs.json`, which each launch writes.

{"launch_id": ..., "submitted": "<ISO time>", "runs_dir": "<the run store>", "code": {...},
 "arrays": [{"array_id": "123", "shape": {...}, "depends_on": "aftercorr:120" or null,
             "elements": [{"index": 0, "job_id": "123_0", "tasks": ["<task id>", ...]}]}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Element:
    """An array element, or a job of its own, and the tasks that it was given."""

    job_id: str
    tasks: tuple[str, ...]
    launch_folder: Path
    runs_dir: str | None = None  # the run store that its tasks write to

    @property
    def logs(self) -> list[Path]:
        """What the job itself has printed, as submitit names the files."""
        folder = self.launch_folder / "workers"
        found = [*folder.rglob(f"{self.job_id}_*_log.err"), *folder.rglob(f"{self.job_id}_*.out")]
        return sorted(found)


def elements(study_folder: Path) -> list[Element]:
    """Everything that a study has submitted, oldest first."""
    found = []
    for file in sorted((study_folder / "launches").glob("*/jobs.json")):
        try:
            values = json.loads(file.read_text())
            runs_dir = values.get("runs_dir")
            found += [
                Element(str(element["job_id"]), tuple(element["tasks"]), file.parent, runs_dir)
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
