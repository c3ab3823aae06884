"""The run store: what is done, running or failed, and what it measured.

A run is known by its id alone, so one store serves every study: a point that is done is never run
twice.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mor.devices import device_key
from mor.train.folder import RunFolder
from sweeps.claim import Claim


@dataclass
class Ledger:
    """The folders below `runs_dir`."""

    runs_dir: Path
    _folders: dict[str, RunFolder] = field(default_factory=dict)

    def folder(self, run_id: str) -> RunFolder:
        if run_id not in self._folders:
            self._folders[run_id] = RunFolder(self.runs_dir / run_id)
        return self._folders[run_id]

    def present(self) -> set[str]:
        """Ids of all runs and trunks that have a folder."""
        if not self.runs_dir.is_dir():
            return set()
        return {path.name for path in self.runs_dir.iterdir() if path.is_dir()}

    def state(self, run_id: str) -> str:
        """planned | running | done | diverged | failed | stopped | interrupted.

        Raises LedgerVersionError where a file was written by another version.
        """
        result = self.folder(run_id).result()
        if result is not None:
            return str(result["status"])
        return self.unfinished_state(run_id, self.folder(run_id).status())

    def unfinished_state(self, run_id: str, status: dict[str, Any] | None) -> str:
        """The state of a run without a result, by its newest status."""
        if status is None:
            return "planned"
        state = str(status.get("state", "planned"))
        if state == "running" and not Claim(self.folder(run_id).path).held():
            return "interrupted"
        return state

    def results(self) -> list[dict[str, Any]]:
        """Every result in the store."""
        found = (self.folder(run_id).result() for run_id in sorted(self.present()))
        return [result for result in found if result is not None]

    def measured_flops_per_s(self, gpu: str) -> dict[tuple[str, str], float]:
        """Median exact FLOP/s of one device per (model, size), of the finished runs on `gpu`s."""
        speeds: dict[tuple[str, str], list[float]] = {}
        for result in self.results():
            speed = result.get("throughput", {})
            device = str(speed.get("device", ""))
            if device_key(device) == gpu and speed.get("flops_per_s"):
                key = (result["model"], result["size"])
                each = float(speed["flops_per_s"]) / speed.get("devices", 1)
                speeds.setdefault(key, []).append(each)
        return {key: statistics.median(values) for key, values in speeds.items()}
