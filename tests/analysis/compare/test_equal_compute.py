import json

import numpy as np
import pytest
from typer.testing import CliRunner

from analysis.cautions import Code
from analysis.commands.cli import app
from analysis.compare.equal_compute import compare
from analysis.errors import AnalysisError
from analysis.fits.isoflop import fit_isoflop
from analysis.reference import load_table9


def falling(table, factors: dict[str, float], noise: float = 0.0):
    """Losses whose minima fall as 3 (C / 1e11)^-0.05, a model's at `factor` times its compute."""
    rng = np.random.default_rng(2)
    gain = table["model"].map(factors)
    floor = 3 * (gain * table["budget"] / 1e11) ** -0.05
    return table.assign(loss=floor + table["loss"] - 2.0 + noise * rng.normal(size=len(table)))


def test_a_known_multiplier_comes_back(make_table):
    table = falling(make_table(), {"vanilla": 1.0, "mor": 1.5})
    done = compare(fit_isoflop(table, resamples=50), "vanilla")
    assert [c.model for c in done.comparisons] == ["mor"] * 3
    for c in done.comparisons:
        assert c.multiplier == pytest.approx(1.5, rel=1e-6)
        assert c.gap == pytest.approx(3 * (c.budget / 1e11) ** -0.05 * (1.5**-0.05 - 1), rel=1e-6)
    assert [c.extrapolated for c in done.comparisons] == [False, False, True]
    assert any("extrapolated: mor at 1e12" in warning.text for warning in done.warnings)


def test_a_budget_without_the_baseline_is_named(make_table):
    table = falling(make_table(), {"vanilla": 1.0, "mor": 1.5})
    told = compare(fit_isoflop(table, resamples=0), "vanilla").warnings
    assert Code.NOT_COMPARED not in {warning.code for warning in told}
    table = table[(table["model"] == "mor") | (table["budget"] < 1e12)]
    done = compare(fit_isoflop(table, resamples=0), "vanilla")
    assert {c.budget for c in done.comparisons} == {1e10, 1e11}
    [lacking] = [warning for warning in done.warnings if warning.code is Code.NOT_COMPARED]
    assert "mor at 1e12" in lacking.text


def test_swapping_the_models_inverts_the_multiplier(make_table):
    result = fit_isoflop(falling(make_table(), {"vanilla": 1.0, "mor": 1.5}), resamples=0)
    there, back = compare(result, "vanilla"), compare(result, "mor")
    product = there.comparisons[0].multiplier * back.comparisons[0].multiplier
    assert product == pytest.approx(1)


def test_noise_gives_intervals_that_hold_the_truth_and_equal_models_are_not_told_apart(make_table):
    table = falling(make_table(), {"vanilla": 1.0, "mor": 1.0}, noise=0.01)
    for c in compare(fit_isoflop(table, resamples=500), "vanilla").comparisons:
        low, high = c.multiplier_interval
        assert low < 1 < high
        assert c.gap_interval[0] < 0 < c.gap_interval[1]


def test_the_sizes_within_a_sigma_are_where_the_parabola_says(make_table):
    result = fit_isoflop(make_table(noise=0.005), resamples=0)
    done = compare(result, "vanilla")
    assert len(done.plateaus) == 6
    for plateau in done.plateaus:
        (minimum,) = [m for m in result.models[plateau.model].minima if m.budget == plateau.budget]
        for end in (plateau.low, plateau.high):
            risen = minimum.parabola.loss_at(end) - minimum.loss
            assert risen == pytest.approx(plateau.sigma, rel=1e-6)
        assert plateau.low < plateau.params < plateau.high
        assert 0.001 < plateau.sigma < 0.02


def without_multiplier(table) -> None:
    done = compare(fit_isoflop(table, resamples=0), "vanilla")
    assert {c.multiplier for c in done.comparisons} == {None}
    assert not any(c.extrapolated for c in done.comparisons)
    assert Code.EXTRAPOLATED not in {warning.code for warning in done.warnings}


def test_a_baseline_that_does_not_improve_has_no_multiplier_to_extrapolate(make_table):
    without_multiplier(make_table())


def test_one_budget_has_a_gap_and_no_multiplier(make_table):
    table = falling(make_table(budgets=(1e11,)), {"vanilla": 1.0, "mor": 1.5})
    (c,) = compare(fit_isoflop(table, resamples=0), "vanilla").comparisons
    assert c.gap < 0
    without_multiplier(table)


def test_the_command_tells_one_budget_from_a_flat_baseline(make_table, tmp_path):
    told = {}
    for name, budgets in (("one", (1e11,)), ("flat", (1e10, 1e11, 1e12))):
        make_table(budgets=budgets).to_csv(tmp_path / f"{name}.csv", index=False)
        done = CliRunner().invoke(app, ["compare", str(tmp_path / f"{name}.csv")])
        told[name] = [line for line in done.stdout.splitlines() if "no multiplier" in line]
    assert len(told["one"]) == 1
    assert "one budget" in told["one"][0]
    assert len(told["flat"]) == 3
    assert not any("one budget" in line for line in told["flat"])


def test_edges_stand_as_bounds_without_an_interval(make_table):
    sizes = {"300k": 3e5, "1m": 1e6, "3m": 3e6, "9m": 9e6}
    table = falling(make_table(sizes=sizes), {"vanilla": 1.0, "mor": 1.5}, noise=0.001)
    done = compare(fit_isoflop(table, resamples=50), "vanilla")
    first = done.comparisons[0]
    assert first.loss_is_bound
    assert first.baseline_is_bound
    assert first.gap_interval is None
    assert any(warning.code is Code.UPPER_BOUND for warning in done.warnings)


def test_table_9_is_told_where_the_parabola_and_the_runs_disagree():
    done = compare(fit_isoflop(load_table9().table, resamples=100), "vanilla")
    at = {(c.model, c.budget): c for c in done.comparisons}
    assert at["mor", 2e18].measured_gap == pytest.approx(3.1026 - 3.0922)
    assert at["mor", 2e18].gap < 0
    assert any(warning.code is Code.LEADER_UNCLEAR for warning in done.warnings)
    assert at["mor", 16.5e18].gap > 0
    assert at["mor", 16.5e18].gap_interval[0] < 0 < at["mor", 16.5e18].gap_interval[1]


@pytest.mark.parametrize("models", [("vanilla",), ("mor", "recursive")])
def test_without_a_baseline_or_another_model_it_is_refused(make_table, models):
    with pytest.raises(AnalysisError, match=r"one model|no model 'vanilla'"):
        compare(fit_isoflop(make_table(models=models), resamples=0), "vanilla")


def test_no_common_budget_is_refused(make_table):
    table = make_table()
    other = table["model"] == "mor"
    apart = table.assign(budget=table["budget"].where(~other, 7 * table["budget"]))
    with pytest.raises(AnalysisError, match="No budget is common"):
        compare(fit_isoflop(apart, resamples=0), "vanilla")


def test_the_command_prints_json_and_words(store):
    runner = CliRunner()
    found = runner.invoke(app, ["compare", str(store), "--json", "--baseline", "mor"])
    content = json.loads(found.stdout, parse_constant=pytest.fail)
    assert content["baseline"] == "mor"
    assert len(content["comparisons"]) == 3
    words = runner.invoke(app, ["compare", str(store)]).stdout
    assert "mor at 1e11: loss 2.0000 against 2.0000" in words
    assert "within one sigma" in words
    refused = runner.invoke(app, ["compare", str(store), "--baseline", "nobody"])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "mor, vanilla" in refused.stderr
