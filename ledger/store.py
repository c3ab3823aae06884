"""The run store: what is done, running or failed, and what it measured.

A run is known by its id alone, so one store serves every study: a point that is done is never run
twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.claims import Claim
from ledger.errors import DamagedFile
from ledger.folder import RunFolder
from ledger.jobs import NO_JOB, Job
from ledger.result import FINISHED, Result


@dataclass
class Ledger:
    """The folders below `runs_dir`, as a process sees them that belongs to `job`."""

    runs_dir: Path
    job: Job = NO_JOB
    _folders: dict[str, RunFolder] = field(default_factory=dict)

    def folder(self, run_id: str) -> RunFolder:
        if run_id not in self._folders:
            self._folders[run_id] = RunFolder(self.runs_dir / run_id)
        return self._folders[run_id]

    def claim(self, run_id: str) -> Claim:
        """The claim of a run or trunk, for this process."""
        return Claim(self.folder(run_id).path, self.job)

    def present(self) -> set[str]:
        """Ids of all runs and trunks that have a folder."""
        if not self.runs_dir.is_dir():
            return set()
        folders = (path.name for path in self.runs_dir.iterdir() if path.is_dir())
        return {name for name in folders if not name.startswith(".")}

    def state(self, run_id: str) -> str:
        """planned | running | done | diverged | failed | stopped | interrupted.

        A run whose result or final checkpoint is damaged is interrupted: it is to be made again.
        Raises LedgerVersionError where a file was written by another version.
        """
        result = self.result(run_id)
        if result is not None:
            return result.status
        status = self.folder(run_id).status()
        if status is not None and status.get("state") in FINISHED:
            status = {**status, "state": "interrupted"}  # what it had is damaged
        return self.unfinished_state(run_id, status)

    def result(self, run_id: str) -> Result | None:
        """The result of a run; None while there is none, and where it or the final checkpoint is
        damaged. Raises LedgerVersionError."""
        result, folder = self._written(run_id), self.folder(run_id)
        lost = result is not None and result.done and folder.final_damage() is not None
        return None if lost else result

    def unfinished_state(self, run_id: str, status: dict[str, Any] | None) -> str:
        """The state of a run without a result, by its newest status."""
        if status is None:
            return "planned"
        state = str(status.get("state", "planned"))
        if state == "running" and not self.claim(run_id).held():
            return "interrupted"
        return state

    def results(self) -> list[Result]:
        """Every result in the store that is what was written."""
        found = (self._written(run_id) for run_id in sorted(self.present()))
        return [result for result in found if result is not None]

    def _written(self, run_id: str) -> Result | None:
        try:
            return self.folder(run_id).result()
        except DamagedFile:
            return None
