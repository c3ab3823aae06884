"""Lack of fit: what is refused, left out or named, with its number."""

import numpy as np
import pandas as pd
import pytest

from analysis.cautions import Code
from analysis.compare.equal_compute import compare
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.minimum import REACH, Status, in_window
from benchmarks.coverage_isoflop import LAWS, Grid, draw

SIGNS = {Code.OUTLIERS, Code.ONE_SIDED_SIZE, Code.BEST_LOSS_RISES, Code.BEST_SIZE_FALLS}


def study(seed=0, noise=0.003) -> pd.DataFrame:
    return draw(np.random.default_rng(seed), LAWS["symmetric"], Grid(7, 4, 4), noise, 0.0)


def codes(result, model) -> list[Code]:
    return [w.code for w in result.models[model].warnings]


def test_clean_studies_are_hardly_ever_called_anything():
    named = [
        any(SIGNS & set(codes(result, model)) for model in result.models)
        for seed in range(40)
        for result in [fit_isoflop(study(seed), resamples=0)]
    ]
    assert sum(named) <= 2


@pytest.mark.parametrize("factor", [1.05, 0.94])
def test_one_outlying_run_is_left_out_with_its_number(factor):
    table = study()
    without = fit_isoflop(table.drop(index=9), resamples=0)
    table.loc[9, "loss"] *= factor
    result = fit_isoflop(table, resamples=50)
    [said] = [w for f in result.models.values() for w in f.warnings if w.code is Code.OUTLIERS]
    assert said.model == "vanilla" == table.loc[9, "model"]
    assert f"{table.loc[9, 'loss']:.4f}" in said.text
    assert result.models["vanilla"].params_law.exponent == pytest.approx(
        without.models["vanilla"].params_law.exponent, abs=1e-9
    )
    assert Code.OUTLIERS in {w.code for w in compare(result, "vanilla").warnings}


def test_no_more_than_a_tenth_of_the_runs_is_left_out():
    table = study(noise=0.0005)
    rng = np.random.default_rng(5)
    hit = rng.choice(len(table), 16, replace=False)
    table.loc[hit, "loss"] *= 1 + rng.uniform(0.05, 0.3, 16)
    result = fit_isoflop(table, resamples=0)
    found = [w for f in result.models.values() for w in f.warnings if w.code is Code.OUTLIERS]
    assert len(found) <= len(table) // 10


def test_a_size_above_its_curves_at_every_budget_is_named():
    sizes = np.geomspace(2e7, 2e9, 7)
    rows = []
    rng = np.random.default_rng(0)
    for budget in np.geomspace(1e18, 1e19, 4):
        for number, params in enumerate(sizes * (budget / 1e18) ** 0.0):
            loss = LAWS["symmetric"].loss(np.array(params), np.array(budget / (6 * params)))
            loss = (
                float(loss) * np.exp(0.002 * rng.standard_normal()) * (1.02 if number == 3 else 1)
            )
            rows.append(("vanilla", params, budget / (6 * params), budget, loss))
    table = pd.DataFrame(rows, columns=["model", "params", "tokens", "budget", "loss"])
    result = fit_isoflop(table, resamples=0)
    [said] = [w for w in result.models["vanilla"].warnings if w.code is Code.ONE_SIDED_SIZE]
    assert f"{sizes[3] / 1e6:.0f}M" in said.text
    assert "+" in said.text


def test_a_minimum_that_no_run_came_near_is_refused(make_table):
    """Points on no law, so that nothing corrects the parabola: flat, then steep on both sides."""
    sizes = np.geomspace(1e6, 1e9, 6)
    loss = np.array([6.0, 3.0, 2.62, 2.70, 2.90, 6.0])
    table = pd.concat(
        pd.DataFrame({"params": sizes, "budget": budget, "loss": loss - shift})
        for budget, shift in ((1e18, 0.0), (1e19, 0.1))
    )
    table = table.assign(model="vanilla", tokens=table["budget"] / (6 * table["params"]))
    frontier = fit_isoflop(table, resamples=50).models["vanilla"]
    for minimum in frontier.minima:
        assert minimum.status is Status.MISFIT
        assert minimum.loss is None
        assert minimum.params_interval is None
        assert f"{minimum.lowest_loss:.4f}" in minimum.reason
    assert {Code.NO_MINIMUM, Code.NO_EXPONENT} <= {w.code for w in frontier.warnings}


def test_minima_that_rise_with_compute_are_named(make_table):
    table = make_table(models=("mor",))
    top = table["budget"] == table["budget"].max()
    table.loc[top, "loss"] += 0.5
    found = fit_isoflop(table, resamples=0)
    [said] = [
        w
        for w in found.models["mor"].warnings
        if w.code is Code.BEST_LOSS_RISES and "1e12" in w.text
    ]
    assert "2.5000" in said.text


def test_a_window_counts_width_not_sizes():
    for number in (15, 60, 200):
        sizes = np.geomspace(1e6, 1e9, number)
        kept = sizes[in_window(sizes, number // 2)]
        middle = sizes[number // 2]
        assert kept[0] >= middle / REACH / (1 + 1e-6) or len(kept) == 7
        assert kept[-1] / kept[0] > 0.7 * REACH**2
        assert in_window(sizes, number // 2, 2).sum() == 5
    assert in_window(np.geomspace(1, 1e9, 7), 0).all()
