"""An autopilot whose runs are jobs of a real Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from ledger.autopilot import LAUNCH, STOP, rounds
from sweeps.autopilot import fly
from sweeps.commands.find import study_view
from tests.sweeps.autopilot.conftest import analysis  # noqa: F401
from tests.sweeps.backends.slurm.real.client import jobs_files

pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.slow]  # one cluster, one worker


def test_it_finishes_the_study_launches_and_waits(
    cluster: Path,
    sweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    analysis,  # noqa: F811
) -> None:
    """Started while the study's own jobs are still in the queue."""
    monkeypatch.setattr(fly, "POLL_S", 1.0)
    submitted = sweep(
        *("-m", "study=quick", "size=9k", "model=vanilla", "budget=3e8,6e8"),
        *("train.val_tokens=1024", "train.warmup_budget=2e8", "launch=slurm"),
    )
    assert submitted.returncode == 0, submitted.stderr
    view = study_view("quick", tmp_path / "studies")
    pilot = fly.Autopilot(view, "a +- 0.2", 1.0, 2, Console(width=200))
    assert pilot.fly() == "met"
    first, last = rounds(view.folder)
    assert (first.action, last.action) == (LAUNCH, STOP)
    assert (first.points, last.points) == (2, 4)
    assert len(jobs_files(tmp_path / "studies")) == 2
