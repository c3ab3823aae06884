"""Every file of a run: `runs/<run_id>/`. All reading and writing of them goes through here.

`config.yaml` (resolved; its contents are `mor`'s), `metrics.jsonl`, `status.json` (heartbeat),
`attempts.jsonl`, `claim.json`, `checkpoints/`, `log.txt`, and `result.json`, written once;
`evaluations/<task set>.json` is what the finished run scores. A trunk has a folder of the same
form, without a result. JSON files are written to a temporary name, synced
and renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.damage import (
    checkpoint_damage,
    checkpoint_digests_differ,
    read_whole,
    set_aside,
    write_digest,
)
from ledger.errors import DamagedFile, MalformedFile
from ledger.evaluation import EVALUATION_SCHEMA, Evaluation
from ledger.files import check_schema, json_object, write_json
from ledger.metrics import VALIDATION, lines_of, read_line
from ledger.part import WrongValue
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

    def plateaus(self) -> dict[Path, float]:
        """The plateau checkpoints of a trunk that are whole, with their FLOPs."""
        paths = self.checkpoints.glob("plateau-*") if self.checkpoints.is_dir() else ()
        whole = (path for path in paths if checkpoint_damage(path) is None)
        return {path: float(path.name.removeprefix("plateau-")) for path in whole}

    def rolling(self, step: int) -> Path:
        """The checkpoint that is written on the way, at a step."""
        return self.checkpoints / f"step-{step:08d}"

    def result(self) -> Result | None:
        """The result, or None while there is none.

        Raises LedgerVersionError; MalformedFile where it is not a result; DamagedFile where it is
        not what was written.
        """
        data = read_whole(self.result_file, self.digest_file)
        if data is None:
            return None
        try:
            return Result.from_dict(_values(data, RESULT_SCHEMA, self.result_file))
        except WrongValue as wrong:
            raise MalformedFile(
                f"{self.result_file}: {wrong}; delete this file and launch the study again"
            ) from None

    def write_result(self, result: Result) -> None:
        self.digest_file.unlink(missing_ok=True)  # of a result that this one replaces
        write_json(self.result_file, {"schema": RESULT_SCHEMA, **result.to_dict()})
        write_digest(self.result_file, self.digest_file)

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

    def set_damaged_aside(self) -> list[str]:
        """Put a damaged result and damaged checkpoints out of the way; says what was wrong.

        The caller holds the claim.
        """
        found = []
        try:
            self.result()
        except DamagedFile:
            found.append(f"{self.result_file.name} is not what was written")
            set_aside(self.result_file)
            set_aside(self.digest_file)
        names = sorted(self.checkpoints.iterdir()) if self.checkpoints.is_dir() else []
        for path in names:
            if not path.name.startswith(".") and (damage := checkpoint_damage(path)):
                found.append(f"{path.name}: {damage}")
                set_aside(path)
        return found

    def set_damaged_final_aside(self) -> bool:
        """Put the final checkpoint out of the way if its files are not those that were written;
        reads all of them. The caller holds the claim."""
        if not self.final.is_dir():
            return False
        try:
            damaged = checkpoint_digests_differ(self.final)
        except DamagedFile:
            damaged = True
        return damaged and set_aside(self.final) is not None

    @property
    def inspections(self) -> Path:
        """What `mor inspect` found of the run: JSON files, and pages of the depth of each token."""
        return self.path / "inspections"

    def evaluation_file(self, task_set: str) -> Path:
        return self.path / "evaluations" / f"{task_set}.json"

    def evaluation(self, task_set: str) -> Evaluation | None:
        """Its scores on a task set, or None while there are none, and where they are not what was
        written: they are scored again. Raises LedgerVersionError."""
        file = self.evaluation_file(task_set)
        try:
            data = read_whole(file, file.with_suffix(".digest"))
            known = None if data is None else _values(data, EVALUATION_SCHEMA, file)
            return None if known is None else Evaluation.from_dict(known)
        except (DamagedFile, WrongValue):
            return None

    def evaluations(self) -> list[Evaluation]:
        """All of them, by the name of their task set."""
        names = sorted(path.stem for path in (self.path / "evaluations").glob("[!.]*.json"))
        found = (self.evaluation(name) for name in names)
        return [one for one in found if one is not None]

    def write_evaluation(self, name: str, evaluation: Evaluation) -> None:
        """Keep scores as `evaluations/<name>.json`, in place of older ones."""
        file = self.evaluation_file(name)
        file.parent.mkdir(exist_ok=True)
        file.with_suffix(".digest").unlink(missing_ok=True)
        write_json(file, {"schema": EVALUATION_SCHEMA, **evaluation.to_dict()})
        write_digest(file, file.with_suffix(".digest"))

    def status(self) -> dict[str, Any] | None:
        """The newest status, or None before the first start and where a crash has torn it. Raises
        LedgerVersionError."""
        try:
            return _values(self.status_file.read_bytes(), SCHEMA, self.status_file)
        except (DamagedFile, FileNotFoundError, NotADirectoryError):
            return None

    def write_status(self, **status: Any) -> None:
        """Replace the status; the time of writing is the heartbeat (seconds since 1970)."""
        entry = {"schema": SCHEMA, "heartbeat": time.time(), **status}
        write_json(self.status_file, entry, sync=False)

    def metrics_at(self, step: int) -> dict[str, Any]:
        """What metrics.jsonl says of a training step; empty where it was not logged."""
        data = self.metrics_file.read_bytes() if self.metrics_file.exists() else b""
        for line in reversed(lines_of(data)):
            values = read_line(line)
            if values is None:
                continue
            if values["step"] < step:
                break
            if values["step"] == step and VALIDATION not in values:
                return {name: value for name, value in values.items() if name != "step"}
        return {}

    def log_tail(self, lines: int = 5) -> list[str]:
        """The last lines of the run's log."""
        if not self.log_file.exists():
            return []
        return self.log_file.read_text(errors="replace").splitlines()[-lines:]


def _values(data: bytes, schema: int, path: Path) -> dict[str, Any]:
    values = json_object(data, path)
    check_schema(values, schema, path)
    del values["schema"]
    return values
