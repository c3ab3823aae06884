"""Every file of a run: `runs/<run_id>/`. All reading and writing of them goes through here.

`config.yaml` (resolved; its contents are `mor`'s), `metrics.jsonl`, `status.json` (heartbeat),
`attempts.jsonl`, `claim.json`, `checkpoints/`, `log.txt`, and `result.json`, written once;
`evaluations/<task set>.json` is what the finished run scores. A trunk has a folder of the same
form, without a result. JSON files are written to a temporary name, synced
and renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.evaluation import EVALUATION_SCHEMA, Evaluation
from ledger.files import check_schema, read_json, write_json
from ledger.result import LOSS_KEYS, RESULT_SCHEMA, Result

SCHEMA = 1  # of status.json and config.yaml
FINAL = "final"
META = "meta.json"  # of a checkpoint, written last: one without it is not complete
VALIDATION = LOSS_KEYS["causal"]  # in a line of metrics.jsonl: it is a validation on the way


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
        """Whether a trunk has been trained to `target` FLOPs."""
        return (self.plateau(target) / META).exists()

    def rolling(self, step: int) -> Path:
        """The checkpoint that is written on the way, at a step."""
        return self.checkpoints / f"step-{step:08d}"

    def result(self) -> Result | None:
        """The result, or None while there is none. Raises LedgerVersionError, UserError."""
        values = _read(self.result_file, RESULT_SCHEMA)
        return None if values is None else Result.from_dict(values)

    def write_result(self, result: Result) -> None:
        write_json(self.result_file, {"schema": RESULT_SCHEMA, **result.to_dict()})

    def evaluation_file(self, task_set: str) -> Path:
        return self.path / "evaluations" / f"{task_set}.json"

    def evaluation(self, task_set: str) -> Evaluation | None:
        """Its scores on a task set, or None while there are none. Raises LedgerVersionError."""
        values = _read(self.evaluation_file(task_set), EVALUATION_SCHEMA)
        return None if values is None else Evaluation.from_dict(values)

    def evaluations(self) -> list[Evaluation]:
        """All of them, by the name of their task set."""
        names = sorted(path.stem for path in (self.path / "evaluations").glob("[!.]*.json"))
        found = (self.evaluation(name) for name in names)
        return [one for one in found if one is not None]

    def write_evaluation(self, name: str, evaluation: Evaluation) -> None:
        """Keep scores as `evaluations/<name>.json`, in place of older ones."""
        file = self.evaluation_file(name)
        file.parent.mkdir(exist_ok=True)
        write_json(file, {"schema": EVALUATION_SCHEMA, **evaluation.to_dict()})

    def status(self) -> dict[str, Any] | None:
        """The newest status, or None before the first start. Raises LedgerVersionError."""
        return _read(self.status_file, SCHEMA)

    def write_status(self, **status: Any) -> None:
        """Replace the status; the time of writing is the heartbeat (seconds since 1970)."""
        entry = {"schema": SCHEMA, "heartbeat": time.time(), **status}
        write_json(self.status_file, entry, sync=False)

    def metrics_at(self, step: int) -> dict[str, Any]:
        """What metrics.jsonl says of a training step; empty where it was not logged."""
        if not self.metrics_file.exists():
            return {}
        for line in reversed(self.metrics_file.read_bytes().splitlines()):
            values: dict[str, Any] = json.loads(line)
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


def _read(path: Path, schema: int) -> dict[str, Any] | None:
    values = read_json(path)
    if values is None:
        return None
    check_schema(values, schema, path)
    return {name: value for name, value in values.items() if name != "schema"}


class MetricsWriter:
    """`metrics.jsonl`: a line for each logged step and one for each validation on the way.

    Each stands there once, however often a run restarts: a line torn by a crash is cut off when
    the file is opened again, and a step that was logged before the crash and is trained again (to
    the same bits) is not logged twice.
    """

    def __init__(self, path: Path) -> None:
        self._last, self.validated = self._repair(path)  # steps of the newest line of each kind
        self._file = path.open("a")

    @staticmethod
    def _repair(path: Path) -> tuple[int, int]:
        if not path.exists():
            return -1, -1
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        trained = validated = -1
        for line in reversed(whole.splitlines()):
            step, is_validation = int(json.loads(line)["step"]), VALIDATION.encode() in line
            if is_validation:
                validated = max(validated, step)
            else:
                trained = step
                break
        at = whole.rfind(VALIDATION.encode()) if validated < 0 else -1
        if at >= 0:
            line = whole[whole.rfind(b"\n", 0, at) + 1 : whole.find(b"\n", at)]
            validated = int(json.loads(line)["step"])
        return trained, validated

    def write(self, step: int, **values: Any) -> None:
        if step > self._last:
            self._append(step, values)
            self._last = step

    def write_validation(self, step: int, **values: Any) -> None:
        """`values` hold `VALIDATION`; the line of the step itself, if any, was written before."""
        if step > self.validated:
            self._append(step, values)
            self.validated = step

    def _append(self, step: int, values: dict[str, Any]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
