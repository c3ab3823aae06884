"""Every file of a run: `runs/<run_id>/`. All reading and writing of them goes through here.

`config.yaml` (resolved; its contents are `mor`'s), `metrics.jsonl`, `status.json` (heartbeat),
`attempts.jsonl`, `claim.json`, `checkpoints/`, `log.txt`, and `result.json`, written once. A trunk
has a folder of the same form, without a result. JSON files are written to a temporary name, synced
and renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.damage import checkpoint_damage, file_digest, set_aside
from ledger.errors import DamagedFile
from ledger.files import check_schema, read_json, write_atomically, write_json
from ledger.result import RESULT_SCHEMA, Result

SCHEMA = 1  # of status.json and config.yaml
FINAL = "final"


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
    def digest_file(self) -> Path:
        """The digest of `result.json`: one that was damaged or edited does not pass for it."""
        return self.path / "result.digest"

    @property
    def attempts_file(self) -> Path:
        return self.path / "attempts.jsonl"

    @property
    def claim_file(self) -> Path:
        return self.path / "claim.json"

    @property
    def diverged_file(self) -> Path:
        """Of a trunk: where it diverged."""
        return self.path / "diverged.json"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The checkpoint of a finished run."""
        return self.checkpoints / FINAL

    def plateau(self, target: float) -> Path:
        """The checkpoint of a trunk at the first step boundary past `target` FLOPs."""
        return self.checkpoints / f"plateau-{target:.9e}"

    def plateau_done(self, target: float) -> bool:
        """Whether a trunk has been trained to `target` FLOPs and has its checkpoint there."""
        return checkpoint_damage(self.plateau(target)) is None

    def rolling(self, step: int) -> Path:
        """The checkpoint that is written on the way, at a step."""
        return self.checkpoints / f"step-{step:08d}"

    def result(self) -> Result | None:
        """The result, or None while there is none. Raises LedgerVersionError, DamagedFile."""
        values = _read(self.result_file, RESULT_SCHEMA)
        if values is None:
            return None
        check_digest(self.result_file, self.digest_file)
        return Result.from_dict(values)

    def write_result(self, result: Result) -> None:
        self.digest_file.unlink(missing_ok=True)  # of a result that this one replaces
        write_json(self.result_file, {"schema": RESULT_SCHEMA, **result.to_dict()})
        write_atomically(self.digest_file, file_digest(self.result_file) + "\n")

    def final_damage(self) -> str | None:
        """What is wrong with the final checkpoint of a run that is done; None: nothing.

        A folder without `checkpoints/` holds a result alone, which is whole.
        """
        return checkpoint_damage(self.final) if self.checkpoints.is_dir() else None

    def damage(self) -> str | None:
        """What a run that has ended has lost of its result or its final checkpoint; None: nothing.

        Raises LedgerVersionError.
        """
        try:
            result = self.result()
        except DamagedFile:
            return f"{self.result_file.name} is not what was written"
        lost = self.final_damage() if result is not None and result.done else None
        return lost and f"checkpoints/{FINAL}: {lost}"

    def set_damaged_aside(self) -> list[Path]:
        """Put a damaged result and final checkpoint out of the way; the caller holds the claim."""
        found = []
        try:
            self.result()
        except DamagedFile:
            found += [set_aside(self.result_file), set_aside(self.digest_file)]
        if self.final.is_dir() and checkpoint_damage(self.final):
            found.append(set_aside(self.final))
        return [path for path in found if path is not None]

    def status(self) -> dict[str, Any] | None:
        """The newest status, or None before the first start and where a crash has torn it. Raises
        LedgerVersionError."""
        try:
            return _read(self.status_file, SCHEMA)
        except DamagedFile:
            return None

    def write_status(self, **status: Any) -> None:
        """Replace the status; the time of writing is the heartbeat (seconds since 1970)."""
        entry = {"schema": SCHEMA, "heartbeat": time.time(), **status}
        write_json(self.status_file, entry, sync=False)

    def log_tail(self, lines: int = 5) -> list[str]:
        """The last lines of the run's log."""
        if not self.log_file.exists():
            return []
        return self.log_file.read_text(errors="replace").splitlines()[-lines:]


def check_digest(file: Path, digest_file: Path) -> None:
    """Raises DamagedFile where a file is not the one whose digest was written beside it."""
    try:
        written = digest_file.read_text().strip()
    except (OSError, ValueError):
        return  # of an older version, or a crash came between the two
    if written != file_digest(file):
        raise DamagedFile(
            f"{file}: not what was written; launch the study again, or, if you edited it yourself, "
            f"delete {digest_file.name}"
        )


def _read(path: Path, schema: int) -> dict[str, Any] | None:
    values = read_json(path)
    if values is None:
        return None
    check_schema(values, schema, path)
    return {name: value for name, value in values.items() if name != "schema"}


class MetricsWriter:
    """`metrics.jsonl`: one line per logged step, each step once, however often a run restarts.

    A line torn by a crash is cut off when the file is opened again; a step that was logged before
    the crash and is trained again (to the same bits) is not logged twice.
    """

    def __init__(self, path: Path) -> None:
        self._last = self._repair(path)
        self._file = path.open("a")

    @staticmethod
    def _repair(path: Path) -> int:
        """Cut off what a crash has torn at the end; the last step that is left, or -1."""
        if not path.exists():
            return -1
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        while whole and (step := _step_of(whole.splitlines()[-1])) is None:
            whole = whole[: whole[:-1].rfind(b"\n") + 1]
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        return step if whole else -1  # type: ignore[return-value]

    def write(self, step: int, **values: Any) -> None:
        if step <= self._last:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        self._last = step

    def close(self) -> None:
        self._file.close()


def _step_of(line: bytes) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return None
