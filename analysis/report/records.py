"""What a page says of a run beyond its point: state, FLOPs under each convention, speed, versions.

Read from `result.json`, and for runs of a plan without one from `status.json`; points from
elsewhere (a CSV, W&B) have no such files and no records.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.compare.device_time import Measured
from analysis.compare.peak_memory import Memory
from ledger.conventions import CONVENTIONS
from ledger.devices import devices_of_run
from ledger.errors import UserError
from ledger.folder import RunFolder
from ledger.result import BITS_KEYS, DONE, LOSS_KEYS


@dataclass(frozen=True)
class Record:
    """One run as its files have it; `flops` by convention, as counted while it trained."""

    run_id: str
    state: str
    model: str = ""
    size: str = ""
    budget: float | None = None
    flops: dict[str, float] = field(default_factory=dict)
    exact_flops_per_s: float | None = None
    device: str | None = None
    devices: int = 1
    peak_gb: float | None = None  # of one GPU, with so many sequences in one forward
    micro_batch: int | None = None
    finished: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    routing: dict[str, Any] | None = None
    loss: dict[str, float] = field(default_factory=dict)

    @property
    def measured(self) -> Measured | None:
        """Device and device time, where the run has kept its speed."""
        exact, speed = self.flops.get("exact"), self.exact_flops_per_s
        if not exact or not speed:
            return None
        return Measured(self.device or "", self.devices * exact / speed, exact)

    @property
    def memory(self) -> Memory | None:
        """Peak memory of one device, where the run has kept it."""
        if not self.peak_gb or not self.micro_batch:
            return None
        return Memory(self.device or "", self.peak_gb, self.micro_batch)

    def bits_per_byte(self, rule: str) -> float | None:
        """Validation loss in bits per byte, where the run has kept it."""
        return self.loss.get(BITS_KEYS.get(rule, BITS_KEYS["causal"]))


def of_points(table: pd.DataFrame) -> dict[str, Record]:
    """A record for each point whose source is a run's folder, by run id."""
    found = {}
    for run_id, source in zip(table["run_id"], table["source"], strict=True):
        folder = Path(str(source))
        if isinstance(run_id, str) and RunFolder(folder).result_file.is_file():
            found[run_id] = read(folder)
    return found


def speeds(records: Mapping[str, Record]) -> dict[str, Measured]:
    """Device and device time of the runs that have kept their speed, by run id."""
    return {name: one.measured for name, one in records.items() if one.measured is not None}


def memories(records: Mapping[str, Record]) -> dict[str, Memory]:
    """Peak memory of the runs that have kept it, by run id."""
    return {name: one.memory for name, one in records.items() if one.memory is not None}


def bits_a_nat(records: Iterable[Record]) -> float | None:
    """Bits per byte of one nat per token, where all runs have it and it is the same for all."""
    pairs = [(r.loss.get(LOSS_KEYS["causal"]), r.bits_per_byte("causal")) for r in records]
    found = [bits / nats for nats, bits in pairs if nats and bits]
    same = len(found) == len(pairs) > 0 and max(found) - min(found) <= 1e-9 * max(found)
    return found[0] if same else None


def read(folder: Path) -> Record:
    """The record of one run's folder; `planned` where it has none yet.

    A result that is not what was written, or of another version, gives no facts, never an error:
    the points were checked before.
    """
    run = RunFolder(folder)
    try:
        result = run.result()
    except UserError:
        result = None
    if result is None:
        status = _object(run.status_file)
        state = str(status.get("state") or "planned")
        return Record(folder.name, state, error=_text(status.get("error")))
    speed = result.throughput
    return Record(
        run_id=folder.name,
        state=result.status or DONE,
        model=result.model,
        size=result.size,
        budget=result.budget,
        flops={name: v for name in CONVENTIONS if (v := result.flops.under(name)) is not None},
        exact_flops_per_s=speed.flops_per_s,
        device=_text(speed.device),
        devices=devices_of_run(run, result),
        peak_gb=speed.peak_gb,
        micro_batch=speed.micro_batch,
        finished=result.finished,
        versions={str(k): str(v) for k, v in _dict(result.extra.get("versions")).items()},
        error=result.error,
        routing=result.routing or None,
        loss=dict(result.loss),
    )


def _object(file: Path) -> dict[str, Any]:
    try:
        return _dict(json.loads(file.read_text()))
    except (OSError, ValueError):
        return {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return str(value) if value else None
