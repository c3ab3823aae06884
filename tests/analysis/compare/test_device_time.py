"""At equal device time: a known law of loss and speed comes back."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.compare.device_time import Measured, at_equal_time, lines, turned
from analysis.compare.equal_compute import compare
from analysis.fits.isoflop import fit_isoflop
from ledger.attempts import AttemptLog
from tests.analysis.conftest import study_table
from tests.analysis.report.conftest import build

DEVICE = "NVIDIA H100"


def timed(gain, slower, noise=0.0, resamples=0, scatter=0.0, seed=3):
    """mor worth `gain` times its compute and `slower` a FLOP; 1 s for 1e9 FLOPs of vanilla. Single
    speeds are off by `scatter`."""
    table = study_table()
    rng = np.random.default_rng(seed)
    factor = np.where(table["model"] == "mor", gain, 1.0)
    floor = 3 * (factor * table["budget"] / 1e11) ** -0.05
    table = table.assign(loss=floor + table["loss"] - 2 + noise * rng.normal(size=len(table)))
    result = fit_isoflop(table, resamples=resamples)
    speeds = {
        name: Measured(DEVICE, budget / 1e9 * (slower if model == "mor" else 1.0) * off, budget)
        for name, model, budget, off in zip(
            table["run_id"],
            table["model"],
            table["budget"],
            np.exp(scatter * rng.normal(size=len(table))),
            strict=True,
        )
    }
    return at_equal_time(compare(result, "vanilla"), result, table, speeds), table, result, speeds


@given(gain=st.floats(0.5, 3), slower=st.floats(0.4, 4))
@example(gain=1.0, slower=1.0)
@settings(max_examples=15, deadline=None)
def test_a_model_of_slow_flops_loses_what_its_time_could_buy(gain, slower):
    found, *_ = timed(gain, slower)
    assert found.device == DEVICE
    assert len(found.rows) == 3
    for row in found.rows:
        there = 3 * (slower * row.budget / 1e11) ** -0.05
        assert row.seconds == pytest.approx(slower * row.baseline_seconds)
        assert row.baseline_loss == pytest.approx(there, rel=1e-6)
        assert row.multiplier == pytest.approx(gain / slower, rel=1e-4)
        assert row.gap == pytest.approx(3 * (gain * row.budget / 1e11) ** -0.05 - there, abs=1e-6)
        assert row.gap_extrapolated == outside(slower * row.budget)
        assert row.multiplier_extrapolated == outside(gain * row.budget)


def outside(budget):
    """Whether vanilla, with budgets from 1e10 to 1e12, never takes the time of this one."""
    return not 1e10 * (1 - 1e-6) <= budget <= 1e12 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("gain", "slower", "gap", "multiplier"),
    [
        (1.2, 0.9, [True, False, False], [False, False, True]),
        (0.9, 1.2, [False, False, True], [True, False, False]),
    ],
)
def test_what_is_extrapolated_is_marked_where_it_stands(gain, slower, gap, multiplier):
    found, *_ = timed(gain, slower)
    assert [row.gap_extrapolated for row in found.rows] == gap
    assert [row.multiplier_extrapolated for row in found.rows] == multiplier
    for row, line in zip(found.rows, lines(found, "vanilla")[1:], strict=True):
        said = line.partition(" and it equals ")
        assert ["(extrapolated)" in part for part in (said[0], said[2])] == [
            row.gap_extrapolated,
            row.multiplier_extrapolated,
        ]


def test_the_headline_says_where_the_order_turns():
    found, *_ = timed(gain=1.5, slower=2.0)
    assert [row.turns for row in found.rows] == [True] * 3
    assert DEVICE in turned(found)
    assert len(lines(found, "vanilla")) == 4
    assert found.scatter == pytest.approx(0, abs=1e-9)
    agreed, *_ = timed(gain=1.5, slower=1.2)
    assert not any(row.turns for row in agreed.rows)
    assert not turned(agreed)


def test_noise_alone_turns_nothing_and_intervals_hold_the_truth():
    found, *_ = timed(gain=1.0, slower=1.0, noise=0.01, resamples=300)
    for row in found.rows:
        assert row.gap_interval[0] < 0 < row.gap_interval[1]
        assert row.multiplier_interval[0] < 1 < row.multiplier_interval[1]
        assert not row.turns


def test_unknown_speeds_and_mixed_devices_are_not_compared():
    _, table, result, speeds = timed(1.5, 2.0)
    done = compare(result, "vanilla")
    nothing = at_equal_time(done, result, table, {})
    assert (nothing.rows, nothing.reason) == ((), "")
    name = table["run_id"].iloc[0]
    some = {key: value for key, value in speeds.items() if key != name}
    assert name in at_equal_time(done, result, table, some).reason
    mixed = at_equal_time(done, result, table, {**speeds, name: Measured("cpu", 1.0, 1e9)})
    assert mixed.rows == ()
    assert "cpu" in mixed.reason
    assert DEVICE in mixed.reason


def test_one_budget_has_no_curve_of_time():
    table = study_table(budgets=(1e11,))
    result = fit_isoflop(table, resamples=0)
    speeds = {name: Measured(DEVICE, 1.0, 1e9) for name in table["run_id"]}
    found = at_equal_time(compare(result, "vanilla"), result, table, speeds)
    assert found.rows == ()
    assert "one budget" in found.reason


def test_a_larger_budget_that_takes_no_longer_is_named_with_its_times():
    _, table, result, _ = timed(1.5, 2.0)
    speeds = {
        name: Measured(DEVICE, budget / params**3, budget)  # larger sizes are much faster
        for name, budget, params in zip(
            table["run_id"], table["budget"], table["params"], strict=True
        )
    }
    found = at_equal_time(compare(result, "vanilla"), result, table, speeds)
    assert found.rows == ()
    assert "two budgets" not in found.reason
    for told in ("vanilla", "1e10", "1e11", " s "):
        assert told in found.reason


@given(slower=st.floats(0.5, 2), scatter=st.floats(0.02, 0.5), seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_noisy_speeds_are_pooled_and_the_law_comes_back(slower, scatter, seed):
    found, *_ = timed(gain=1.5, slower=slower, scatter=scatter, seed=seed)
    assert found.scatter == pytest.approx(scatter, rel=0.6)
    for row in found.rows:
        off = np.log(row.seconds / row.baseline_seconds / slower)
        assert abs(off) < 5 * row.seconds_error
        assert 0 < row.seconds_error < 2**0.5 * found.scatter


def test_a_turn_that_the_scatter_could_explain_is_no_headline():
    close = [timed(1.5, 1.35, scatter=0.3, seed=seed)[0] for seed in range(40)]
    assert sum(bool(turned(found)) for found in close) <= 4
    assert all(any(row.unsure for row in found.rows) for found in close[:3])
    assert "mor at" in lines(close[0], "vanilla")[0]
    far = [timed(1.2, 4.0, scatter=0.2, seed=seed)[0] for seed in range(10)]
    assert all(turned(found) for found in far)


def test_one_run_of_each_size_turns_nothing_as_its_scatter_is_unknown():
    table = study_table(sizes={"100k": 1e5}, budgets=(1e10, 1e11), noise=0.0)
    table = table.assign(params=table["params"] * np.where(table["budget"] > 1e10, 2, 1))
    gain = np.where(table["model"] == "mor", 1.1, 1.0)
    table = table.assign(loss=3 * (gain * table["budget"] / 1e11) ** -0.05)
    result = fit_isoflop(table, resamples=0)
    speeds = {
        name: Measured(DEVICE, budget * (3 if model == "mor" else 1), budget)
        for name, model, budget in zip(
            table["run_id"], table["model"], table["budget"], strict=True
        )
    }
    found = at_equal_time(compare(result, "vanilla"), result, table, speeds)
    assert len(found.rows) == 2
    assert found.scatter is None
    assert not turned(found)


def test_runs_that_kept_their_speed_are_compared_by_the_command(tmp_path):
    folder = build(tmp_path)
    done = CliRunner().invoke(app, ["compare", str(folder), "--bootstrap", "50", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["device_time"]["rows"]
    # 3.3 against 3.0 FLOPs counted in full for one of the budget's, at the same speed
    assert [row["seconds"] / row["baseline_seconds"] for row in rows] == pytest.approx([1.1] * 3)


def test_the_device_time_of_a_run_is_that_of_all_its_devices(tmp_path):
    from analysis.report import records

    folder = build(tmp_path)
    file = next((tmp_path / "runs").glob("vanilla-*/result.json"))
    before = records.read(file.parent).measured
    result = json.loads(file.read_text())
    result["throughput"]["devices"] = 8
    file.write_text(json.dumps(result))
    after = records.read(file.parent).measured
    assert after.seconds == pytest.approx(8 * before.seconds)
    log = AttemptLog(file.parent)  # of a run of before threads were kept
    log.begin(file.parent.name, "launch", 16, False)
    assert records.read(file.parent).measured.seconds == pytest.approx(16 * before.seconds)
    result["throughput"]["threads"] = 4
    file.write_text(json.dumps(result))
    assert records.read(file.parent).measured.seconds == pytest.approx(8 * before.seconds)
    del result["throughput"]["flops_per_s"]
    file.write_text(json.dumps(result))
    assert records.read(file.parent).measured is None
    assert folder.is_dir()
