import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.cautions import Code
from analysis.fits import bootstrap
from analysis.fits import noise as noise_of
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.parabola import fit_parabola


def test_slopes_equal_polyfit_and_skip_what_is_missing():
    x = np.array([1.0, 2.0, 4.0])
    y = np.array([[1.0, 3.0, 4.0], [1.0, np.nan, 7.0], [np.nan, np.nan, 2.0]])
    slopes = bootstrap.slopes(x, y)
    assert slopes[0] == pytest.approx(np.polyfit(x, y[0], 1)[0])
    assert slopes[1] == pytest.approx(2.0)
    assert np.isnan(slopes[2])


def test_the_spread_of_a_vertex_matches_error_propagation():
    # var(c) = s^2 (X'X)^-1; the vertex is -c1 / 2 c2: compare the first-order standard error.
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 40)
    noise = 0.01 * rng.normal(size=40)
    parabola = fit_parabola(x, 2 + 0.5 * (x - 0.1) ** 2 + noise)
    scale = bootstrap.scales(noise_of.pool([parabola]), 4000, 0)
    drawn = bootstrap.errors(len(parabola.loss), scale, rng)
    vertices = bootstrap.vertices(parabola, bootstrap.refits(parabola, drawn))
    c = parabola.coefficients
    gradient = np.array([0, -0.5 / c[2], 0.5 * c[1] / c[2] ** 2])
    variance = parabola.residuals.var() * 40 / 37
    covariance = variance * np.linalg.inv(parabola.design.T @ parabola.design)
    assert vertices.std() == pytest.approx(np.sqrt(gradient @ covariance @ gradient), rel=0.08)


def test_the_interval_covers_the_truth_about_as_often_as_it_says(make_table):
    exact = make_table(models=("mor",))
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        table = exact.assign(loss=exact["loss"] + 0.005 * rng.normal(size=len(exact)))
        low, high = fit_isoflop(table, resamples=200).models["mor"].params_law.interval
        covered += low <= 0.5 <= high
    # 90 % measured for seven sizes a budget; a missing residual correction falls below 80.
    assert 82 <= covered <= 98


def test_the_same_seed_gives_the_same_interval_and_another_seed_another(make_table):
    table = make_table(models=("mor",), noise=0.01)
    intervals = [
        fit_isoflop(table, seed=seed).models["mor"].params_law.interval for seed in (0, 0, 1)
    ]
    assert intervals[0] == intervals[1] != intervals[2]


def test_exact_parabolas_have_no_interval_rather_than_a_zero_one(make_table):
    sizes = {"5k": 5e3, "100k": 1e5, "2m": 2e6}
    frontier = fit_isoflop(make_table(models=("mor",), sizes=sizes)).models["mor"]
    assert frontier.params_law.exponent == pytest.approx(0.5, abs=1e-9)
    assert frontier.params_law.interval is None
    assert any(
        warning.text.startswith("No interval: at 1e10, 1e11, 1e12") for warning in frontier.warnings
    )


def test_a_second_seed_gives_three_sizes_an_interval(make_table):
    sizes = {"5k": 5e3, "100k": 1e5, "2m": 2e6}
    table = make_table(models=("mor",), sizes=sizes, seeds=(0, 1), noise=0.01)
    assert fit_isoflop(table).models["mor"].params_law.interval is not None


def test_few_degrees_of_freedom_are_called_weak(make_table):
    sizes = {"10k": 1e4, "40k": 4e4, "100k": 1e5, "1m": 1e6}
    few = fit_isoflop(make_table(models=("mor",), sizes=sizes, noise=0.001)).models["mor"]
    assert any(warning.code is Code.WEAK_INTERVAL for warning in few.warnings)
    many = fit_isoflop(make_table(models=("mor",), noise=0.001)).models["mor"]
    assert many.warnings == ()


def test_noise_that_loses_minima_is_said(make_table):
    table = make_table(models=("mor",), noise=0.25)
    warnings = fit_isoflop(table).models["mor"].warnings
    assert any(
        "lose a minimum" in str(warning) or "No exponent" in str(warning).text
        for warning in warnings
    )


def test_no_resamples_no_interval(make_table):
    frontier = fit_isoflop(make_table(noise=0.01), resamples=0).models["mor"]
    assert frontier.params_law.interval is None


def test_percentiles_need_half_of_the_samples():
    assert bootstrap.percentile_interval(np.array([np.nan, np.nan, 1.0])) is None
    low, high = bootstrap.percentile_interval(np.arange(1001.0))
    assert (low, high) == pytest.approx((25, 975))


def test_a_thousand_resamples_take_well_under_two_seconds(make_table):
    table: pd.DataFrame = make_table(models=("vanilla", "recursive", "mor"), noise=0.01)
    start = time.perf_counter()
    fit_isoflop(table, resamples=1000)
    assert time.perf_counter() - start < 2


def test_three_sizes_at_one_budget_take_their_noise_from_the_others(make_table):
    table = make_table(models=("mor",), noise=0.002)
    first = table["budget"] == table["budget"].min()
    sizes = sorted(table["params"].unique())
    lowest = sizes.index(table[first].sort_values("loss")["params"].iloc[0])
    middle = sizes[lowest - 1 : lowest + 2]
    frontier = fit_isoflop(table[~first | table["params"].isin(middle)]).models["mor"]
    assert frontier.minima[0].parabola.degrees_of_freedom == 0
    assert frontier.minima[0].params_interval is not None
    assert frontier.params_law.interval is not None


def test_holm_adjusts_as_by_hand():
    assert bootstrap.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert bootstrap.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert bootstrap.holm([]) == []


def test_a_gap_has_the_interval_and_p_of_a_t_test():
    scipy_stats = pytest.importorskip("scipy.stats")
    noise = noise_of.Noise(0.003, 7)
    assert bootstrap.student_quantile(noise.degrees_of_freedom) == pytest.approx(
        scipy_stats.t.ppf(0.975, 7)
    )
    assert bootstrap.p_value(-2.1, noise) == pytest.approx(2 * scipy_stats.t.sf(2.1, 7))
    draws = bootstrap.scales(noise, 40_000, 0) * np.random.default_rng(0).standard_normal(40_000)
    half = 0.003 * bootstrap.student_quantile(noise.degrees_of_freedom)
    assert np.percentile(draws, [2.5, 97.5]) == pytest.approx([-half, half], rel=0.03)


def test_a_resample_that_opens_downwards_has_no_minimum():
    # Pure noise on a flat curve: half of the refits are concave, and their vertex is a maximum.
    rng = np.random.default_rng(1)
    flat = fit_parabola(np.linspace(-1, 1, 30), 3 + 0.1 * rng.normal(size=30))
    flat = replace(flat, coefficients=np.array([3.0, 0.0, 0.0]))
    scale = bootstrap.scales(noise_of.pool([flat]), 4000, 0)
    drawn = bootstrap.errors(len(flat.loss), scale, rng)
    vertices = bootstrap.vertices(flat, bootstrap.refits(flat, drawn))
    assert np.isnan(vertices).mean() > 0.5
