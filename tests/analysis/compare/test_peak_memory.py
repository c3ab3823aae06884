"""At equal peak memory: a known law of loss and memory comes back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.compare.equal_compute import compare
from analysis.compare.peak_memory import Memory, at_equal_memory, lines, turned
from analysis.fits.isoflop import fit_isoflop
from tests.analysis.conftest import optimal_size, study_table
from tests.analysis.report.conftest import build

DEVICE = "NVIDIA H100"
BEND = 0.03  # of the loss in log(params), as study_table has it


def within(lead: float, larger: float, resamples: int = 0, power: float = 0.8, noise: float = 0.0):
    """mor `lead` nats ahead at equal FLOPs, taking `larger` times the memory of its size."""
    table = study_table()
    is_mor = (table["model"] == "mor").to_numpy()
    errors = noise * np.random.default_rng(3).normal(size=len(table))
    table = table.assign(loss=table["loss"] - lead * is_mor + errors)
    result = fit_isoflop(table, resamples=resamples)
    gb = np.where(is_mor, larger, 1.0) * (table["params"] / 1e5) ** power
    memory = {
        name: Memory(DEVICE, float(one), 1) for name, one in zip(table["run_id"], gb, strict=True)
    }
    return at_equal_memory(compare(result, "vanilla"), result, table, memory), table, result, memory


@given(lead=st.floats(-0.1, 0.1), larger=st.floats(0.3, 5), power=st.floats(0.5, 1))
@settings(max_examples=20, deadline=None)
def test_a_model_of_more_memory_is_compared_at_a_smaller_size(lead, larger, power):
    found, *_ = within(lead, larger, power=power)
    assert found.device == DEVICE
    assert len(found.rows) == 3
    for row in found.rows:
        assert row.gb / row.baseline_gb == pytest.approx(larger)
        smaller = np.log(larger) / power if larger > 1 else 0.0  # in log(params)
        if optimal_size(row.budget) * np.exp(-smaller) < 3e3 * (1 + 1e-9):
            assert row.params is None
            continue
        assert row.params == pytest.approx(optimal_size(row.budget) * np.exp(-smaller))
        assert row.gap == pytest.approx(BEND * smaller**2 - lead, abs=1e-6)
        if min(abs(lead), abs(row.gap)) > 1e-6:
            assert row.turns == (larger > 1 and lead > 0 and BEND * smaller**2 > lead)


def test_the_headline_and_the_lines_say_where_the_order_turns():
    found, *_ = within(lead=0.01, larger=2.5)
    assert [row.turns for row in found.rows] == [True] * 3
    assert DEVICE in turned(found)
    assert len(lines(found, "vanilla")) == 3
    smaller, *_ = within(lead=0.01, larger=0.5)
    assert not turned(smaller)
    assert all("fits" in line for line in lines(smaller, "vanilla"))


def test_an_interval_moves_with_the_gap():
    found, _, result, _ = within(0.01, 2.5, resamples=200, noise=0.001)
    for row, told in zip(found.rows, compare(result, "vanilla").comparisons, strict=True):
        ends, before = row.gap_interval, told.gap_interval
        assert ends[1] - ends[0] == pytest.approx(before[1] - before[0])
        assert ends[0] < row.gap < ends[1]


def test_what_cannot_be_compared_is_said():
    _, table, result, memory = within(0.01, 2.0)
    done, name = compare(result, "vanilla"), table["run_id"].iloc[0]
    nothing = at_equal_memory(done, result, table, {})
    assert (nothing.rows, nothing.reason) == ((), "")
    for changed, told in (
        ({k: v for k, v in memory.items() if k != name}, name),
        ({**memory, name: Memory("an older GPU", 1.0, 1)}, "an older GPU"),
        ({**memory, name: Memory(DEVICE, 1.0, 8)}, "runtime.micro_batch"),
        ({**memory, name: Memory(DEVICE, 1e6, 1)}, table["model"].iloc[0]),
    ):
        found = at_equal_memory(done, result, table, changed)
        assert found.rows == ()
        assert told in found.reason


def test_runs_that_kept_their_memory_are_compared_by_the_command_and_on_the_page(tmp_path):
    folder = build(tmp_path)
    for file in (tmp_path / "runs").glob("*/result.json"):
        result = json.loads(file.read_text())
        gb = (2.0 if result["model"] != "vanilla" else 1.0) * result["n_params"] / 1e4
        result["throughput"] |= {"peak_gb": gb, "micro_batch": 1}
        file.write_text(json.dumps(result))
        (file.parent / "result.sha256").unlink(missing_ok=True)
    told = CliRunner().invoke(app, ["compare", str(folder), "--bootstrap", "50", "--json"])
    assert told.exit_code == 0, told.output
    rows = json.loads(told.stdout)["peak_memory"]["rows"]
    assert [row["gb"] / row["baseline_gb"] for row in rows] == pytest.approx([2.0] * 3, rel=0.05)
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", str(folder), "--bootstrap", "50", "--out", str(page)])
    assert done.exit_code == 0, done.output
    assert 'id="peak-memory"' in page.read_text()
