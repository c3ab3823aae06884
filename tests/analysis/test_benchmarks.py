"""The benchmarks of the fits run and say what they promise, on a small scale."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import coverage_autopilot, coverage_design, coverage_tuning, forecast
from benchmarks.coverage import coverage
from benchmarks.coverage_isoflop import GRIDS, LAWS, referee

ROOT = Path(__file__).parents[2]


def test_the_fit_benchmark_prints_its_comparison(tmp_path):
    rows = [f"{n}e7,{d}e9,{2 + 1 / n + 1 / d}" for n in range(1, 5) for d in range(1, 5)]
    points = tmp_path / "points.csv"
    points.write_text("\n".join(["params,tokens,loss", *rows]))
    command = [sys.executable, "benchmarks/fit.py", "--json", "--scipy-starts", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--points", str(points)],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    report = json.loads(done.stdout)
    assert (report["points"], report["starts"]) == (16, 4500)
    for name in ("scipy_numeric", "scipy_exact"):
        assert report[name]["starts"] == 2
        assert report[name]["all_starts_s"] == 2250 * report[name]["measured_s"]
        assert report[name]["times_our_objective"] >= 1 - 1e-6
    assert report["ours"]["gradient_norm"] < 1e-6


def test_intervals_of_small_studies_hold_the_truth():
    held = coverage("24 rows", 25)
    # 98 % measured over 200 studies: fewer than 21 of 25 has a chance below one in 10,000.
    assert all(held[name] >= 0.84 for name in ("alpha", "beta", "E", "a"))


@pytest.mark.parametrize("grid", ["table 9", "demo", "seven"])
def test_gaps_and_exponents_of_small_grids_hold_the_truth(grid):
    found = referee(LAWS["symmetric"], GRIDS[grid], 0.003, 0.0, 100)
    # Resampled residuals held 80 to 91 % here; 5 of 100 studies called falsely is nominal.
    assert found["gap held"] >= 0.92
    assert found["N_opt held"] >= 0.90
    assert found["a held"] >= 0.88
    assert found["false"] <= 0.13


@pytest.mark.parametrize("valley", ["parabola", "steep above"])
def test_best_rates_hold_the_truth_and_mistuning_explains_no_less(valley):
    found = coverage_tuning.referee(valley, "five", 0.003, 0.0, 20)
    assert found["optimum held"] >= 0.8
    assert found["a held"] >= 0.7
    assert found["at most held"] >= 0.95
    assert abs(found["off"]) < 0.06


def test_design_says_what_studies_show():
    found = coverage_design.referee(LAWS["symmetric"], GRIDS["demo"], 0.003, 100)
    assert found["half said"] == pytest.approx(found["half seen"], rel=0.4)
    assert found["half 3 said"] == pytest.approx(found["half 3 seen"], rel=0.4)
    assert found["printed / said"] == pytest.approx(1, abs=0.3)
    assert found["lost said"] == found["lost seen"] == 0


def test_an_interval_that_ends_a_study_holds_the_truth():
    found = coverage_autopilot.referee(LAWS["symmetric"], GRIDS["demo"], 0.003, 0.6, 30)
    assert found["stopped"] == 1
    assert found["added"] > 5
    # 0.95: fewer than 25 of 30 has a chance of about 1 in 2,000.
    assert found["held"] >= 0.83
    assert abs(found["bias"]) < found["target"]


def test_forecasts_are_as_close_as_the_points_let_them_be():
    found = forecast.simulated(LAWS["symmetric"], GRIDS["mid"], 0.003, 60, 0.95)
    assert found["ours median %"] < 1.5 * found["bound median %"]
    assert found["width"] == pytest.approx(found["bound width"], rel=0.35)
    assert found["held"] >= 0.85
    assert found["N_opt held"] >= 0.85
