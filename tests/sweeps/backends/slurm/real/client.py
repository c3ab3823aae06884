"""What the tests on a real Slurm share: its client commands, waiting, results."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def slurm(*command: str) -> str:
    """The output of a client command."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True
    ).stdout.strip()


def wait(condition: Callable[[], object], seconds: float = 120) -> None:
    """Poll until the condition holds; fails with what is in the queue."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, slurm("squeue")
        time.sleep(0.3)


def results(runs: Path) -> dict[str, dict]:
    """Every result of a run store, by run id."""
    return {p.parent.name: json.loads(p.read_text()) for p in sorted(runs.glob("*/result.json"))}


def queue(columns: str) -> list[str]:
    """A line of squeue for each job and array element that waits or runs."""
    return slurm("squeue", "-h", "-r", "-o", columns).split()


def jobs_files(studies: Path) -> list[Path]:
    """The jobs.json of every launch below a folder of studies, the oldest first."""
    return sorted(studies.glob("*/launches/*/jobs.json"))
