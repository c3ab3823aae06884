"""The benchmarks still run, each as small as it goes: what it prints is there, not what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = {
    "benchmarks/fit.py --json --scipy-starts 1": ("ours", "projection", "scipy_exact"),
    "benchmarks/data.py --json --mb 0.3 --repeats 1 --steps 3": ("preparing", "wait"),
    "-m benchmarks.coverage --json --studies 2 --only ladder": ("nominal", "coverage"),
    "-m benchmarks.coverage_isoflop --studies 2": ("a held", "false top"),
    "-m benchmarks.coverage_conclusions agree --studies 2": ("false", "leads"),
    "-m benchmarks.coverage_conclusions k --studies 2": ("laws held", "minima held"),
    "-m benchmarks.coverage_design --studies 2": ("half said", "half seen"),
    "-m benchmarks.coverage_tuning --studies 2": ("refused",),
    "-m benchmarks.coverage_autopilot --studies 1 --factor 0.95": ("held", "fixed"),
    "-m benchmarks.forecast --studies 2": ("held", "bound width"),
}


def run(*typed: str) -> str:
    """What a benchmark prints."""
    done = subprocess.run(
        [sys.executable, *typed],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MOR_PUBLIC_POINTS": ""},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("typed", SMALL)
def test_a_benchmark_still_runs(typed: str) -> None:
    assert set(SMALL[typed]) <= set(json.loads(run(*typed.split())))


def test_every_command_of_a_large_store_still_runs(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    run("benchmarks/scale.py", "--runs", "24", "--variants", "1", "--json", str(file))
    assert {"plan", "status", "why", "isoflop", "compare", "figures", "report"} <= set(
        json.loads(file.read_text())["commands"]
    )
