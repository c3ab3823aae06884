"""`runs/.speeds/`: how fast a model of a size trains on a device, measured before a study.

One file for each (model, size, kind of device, settings that matter for speed), written whole; the
newest of a model and size on a device counts. Finished runs, which measure the real thing, count
before these.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.errors import DamagedFile, LedgerVersionError
from ledger.files import check_schema, read_json, write_json
from ledger.part import OPTIONAL, Part, WrongValue

SCHEMA = 1
FOLDER = ".speeds"


@dataclass(frozen=True, kw_only=True)
class Speed(Part):
    """One measurement. `extra` has where it comes from: git commit, versions."""

    model: str = ""
    size: str = ""
    device: str = ""  # the GPU's name, or cpu
    devices: int = 1  # GPUs, or the threads of all processes (`ledger.devices`)
    threads: int | None = field(default=None, metadata=OPTIONAL)  # of each process on a CPU
    tokens_per_s: float = 0.0  # of all devices
    flops_per_s: float = 0.0  # exact FLOPs, of all devices
    mfu: float | None = None
    peak_memory_gb: float | None = None  # of one process: on its GPU, or resident
    micro_batch: int | None = None  # sequences per forward of a process; None: all of them
    steps: int = 0
    seconds: float = 0.0  # of these steps
    settings: dict[str, Any] = field(default_factory=dict)  # that matter for speed
    measured: str = ""  # ISO 8601, UTC


def speed_file(runs_dir: Path, model: str, size: str, settings: dict[str, Any]) -> Path:
    """Where a measurement of these settings stands."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return runs_dir / FOLDER / f"{model}-{size}-{digest}.json"


def write_speed(path: Path, speed: Speed) -> None:
    """Write a measurement, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema": SCHEMA, **speed.to_dict()})


def read_speed(path: Path) -> Speed | None:
    """A measurement; None where there is none that can be read."""
    try:
        values = read_json(path)
        if values is None:
            return None
        check_schema(values, SCHEMA, path)
        return Speed.from_dict({key: value for key, value in values.items() if key != "schema"})
    except (DamagedFile, LedgerVersionError, WrongValue):
        return None


def speeds(runs_dir: Path) -> list[Speed]:
    """Every measurement of a store, oldest first."""
    found = (read_speed(path) for path in sorted((runs_dir / FOLDER).glob("*.json")))
    return sorted((one for one in found if one is not None), key=lambda one: one.measured)
