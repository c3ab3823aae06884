"""One submitted run on a real Slurm, ways to look at it and to meddle, and how it has to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from ledger.attempts import Attempt, AttemptLog
from tests.sweeps.backends.slurm.real.client import results, slurm, wait
from tests.sweeps.conftest import REPO

RUN = [
    *("-m", "study=quick", "size=9k", "model=mor", "budget=3e9", "train.branch=false"),
    *("train.val_tokens=1024", "train.warmup_budget=2e8", "runtime.log_steps=1"),
]
SLURM = ["launch=slurm", "launch.slurm.pack_min=30", "runtime.checkpoint_s=0.2"]


def weights(run: Path) -> dict[str, bytes]:
    """The final weights and optimiser state, as bytes."""
    out = run / "final.pt"
    dcp_to_torch_save(run / "checkpoints" / "final", out)
    return {name: t.numpy().tobytes() for name, t in torch.load(out, weights_only=True).items()}


def sweeps(folder: Path, *arguments: str) -> str:
    """What `python -m sweeps` prints in a folder; it has to end well."""
    ended = subprocess.run(
        [sys.executable, "-m", "sweeps", *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


class Case:
    """One submitted run in a folder of its own, and ways to look at it and to meddle."""

    def __init__(self, folder: Path, whole: Path) -> None:
        self.folder, self.whole = folder, whole
        self.run = folder / "runs" / whole.name

    def sweeps(self, *arguments: str) -> str:
        return sweeps(self.folder, *arguments)

    def checkpoints(self) -> list[Path]:
        return list(self.run.glob("checkpoints/step-*/meta.json"))

    def status(self) -> dict[str, Any]:
        return json.loads((self.run / "status.json").read_text())

    def attempts(self) -> list[Attempt]:
        return AttemptLog(self.run).read()

    def job(self) -> str:
        job_id = self.attempts()[-1].job_id
        assert job_id is not None
        return job_id

    def worker(self) -> psutil.Process:
        return psutil.Process(self.status()["pid"])

    def steppers(self) -> list[psutil.Process]:
        """The slurmstepd processes of its job: above the worker and above the batch script."""
        above = [p for p in self.worker().parents() if p.name() == "slurmstepd"]
        number = slurm("squeue", "-h", "-j", self.job(), "-o", "%A")
        named = [p for p in psutil.process_iter() if f"[{number}." in " ".join(_words(p))]
        return list({p.pid: p for p in [*above, *named]}.values())

    def ends(self, *causes: str) -> None:
        """Wait for the end: once, with the whole run's numbers and bits, and these causes."""
        assert self.causes() == [*causes, "finished"], self.attempts()

    def causes(self) -> list[str | None]:
        """The same; returns the causes."""
        wait(lambda: results(self.folder / "runs"), 240)
        wait(lambda: self.attempts()[-1].cause, 60)
        self.sweeps("status", "quick")  # settles what only Slurm knows
        result = json.loads((self.run / "result.json").read_text())
        expected = json.loads((self.whole / "result.json").read_text())
        assert result["loss"] == expected["loss"]
        assert result["flops"] == expected["flops"]  # what was trained twice is counted once
        steps = [json.loads(line)["step"] for line in (self.run / "metrics.jsonl").open()]
        assert steps == list(range(1, result["steps"] + 1))
        assert "resumed from step-" in (self.run / "log.txt").read_text()
        assert weights(self.run) == weights(self.whole)
        return [attempt.cause for attempt in self.attempts()]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
