"""Every file of a run: `runs/<run_id>/`. All reading and writing of them goes through here.

`config.yaml` (resolved), `metrics.jsonl`, `status.json` (heartbeat), `checkpoints/`, `log.txt`, and
`result.json`, written once. A trunk has a folder of the same form, without a result. JSON files are
written to a temporary name, synced and renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mor.config import Config, UserError, from_dict, to_dict
from mor.files import write_atomically, write_json

SCHEMA = 1  # of result.json, status.json and config.yaml


class LedgerVersionError(UserError):
    """A file of the ledger was written by another version of this project."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run or trunk, and the ways in which its files are read and written."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def result_file(self) -> Path:
        return self.path / "result.json"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def plateau(self, target: float) -> Path:
        """The checkpoint of a trunk at the first step boundary past `target` FLOPs."""
        return self.checkpoints / f"plateau-{target:.9e}"

    def rolling(self, step: int) -> Path:
        """The checkpoint that is written on the way, at a step."""
        return self.checkpoints / f"step-{step:08d}"

    def create(self, config: Config) -> None:
        """Make the folder and write the resolved configuration, unless it is there."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        if not self.config_file.exists():
            text = yaml.safe_dump({"schema": SCHEMA, **to_dict(config)}, sort_keys=False)
            write_atomically(self.config_file, text)

    def config(self) -> Config:
        """The resolved configuration. Raises LedgerVersionError, ConfigError."""
        values = yaml.safe_load(self.config_file.read_text())
        _check_schema(values, self.config_file)
        return from_dict(Config, {k: v for k, v in values.items() if k != "schema"})

    def result(self) -> dict[str, Any] | None:
        """The result, or None while there is none. Raises LedgerVersionError."""
        return _read_json(self.result_file)

    def write_result(self, result: dict[str, Any]) -> None:
        write_json(self.result_file, {"schema": SCHEMA, **result})

    def status(self) -> dict[str, Any] | None:
        """The newest status, or None before the first start. Raises LedgerVersionError."""
        return _read_json(self.status_file)

    def write_status(self, **status: Any) -> None:
        """Replace the status; the time of writing is the heartbeat (seconds since 1970)."""
        entry = {"schema": SCHEMA, "heartbeat": time.time(), **status}
        write_json(self.status_file, entry, sync=False)

    def log_tail(self, lines: int = 5) -> list[str]:
        """The last lines of the run's log."""
        if not self.log_file.exists():
            return []
        return self.log_file.read_text(errors="replace").splitlines()[-lines:]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: not valid JSON ({error}); delete this file and launch the study again"
        ) from None
    _check_schema(values, path)
    return values


def _check_schema(values: dict[str, Any], path: Path) -> None:
    found = values.get("schema") if isinstance(values, dict) else None
    if found != SCHEMA:
        raise LedgerVersionError(
            f"{path}: written with schema {found}, this version reads schema {SCHEMA}; "
            "use another store with runs_dir=<new folder> or the version that wrote it"
        )


class MetricsWriter:
    """`metrics.jsonl`: one line per logged step, each step once, however often a run restarts.

    A line torn by a crash is cut off when the file is opened again; a step that was logged before
    the crash and is trained again (to the same bits) is not logged twice.
    """

    def __init__(self, path: Path) -> None:
        self._last = self._mend(path)
        self._file = path.open("a")

    @staticmethod
    def _mend(path: Path) -> int:
        if not path.exists():
            return -1
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        lines = whole.splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else -1

    def write(self, step: int, **values: Any) -> None:
        if step <= self._last:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        self._last = step

    def close(self) -> None:
        self._file.close()
