"""The noise of an exponent where runs share trunks."""

import numpy as np
import pytest

from analysis.fits import slopes
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.maker import of_parabolas
from analysis.fits.noise import Residuals
from analysis.fits.parabola import fit_parabola
from analysis.fits.slopes import slope_noise
from benchmarks.coverage_isoflop import GRIDS, LAWS, draw, oracle_width

SIZES, BUDGETS, CURVES = 6, 4, 5
TRUNK = np.tile(np.arange(SIZES), BUDGETS)


def study(rng, own, shared):
    """The residuals of a study with these variances, and a slope's error in its first curve."""
    x = np.linspace(-1, 1, SIZES)
    places = np.split(np.arange(SIZES * BUDGETS), BUDGETS)
    maker = of_parabolas([fit_parabola(x, 1 + x * x)] * BUDGETS, places, SIZES * BUDGETS)
    parts = []
    for _ in range(CURVES):
        error = np.sqrt(own) * rng.standard_normal(len(TRUNK))
        error += (np.sqrt(shared) * rng.standard_normal(SIZES))[TRUNK]
        parts.append(Residuals(maker.of(error), maker, TRUNK, np.arange(len(TRUNK))))
    return parts


@pytest.mark.parametrize(("own", "shared"), [(1.0, 0.0), (0.5, 0.5), (0.1, 0.9)])
@pytest.mark.parametrize("mixed", [0.0, 1.0])
def test_error_and_degrees_of_freedom_are_those_of_what_was_drawn(own, shared, mixed):
    """A slope over budgets, in which trunks cancel, and one in which a part of them stays."""
    rng = np.random.default_rng(0)
    over = np.repeat(np.linspace(-1, 1, BUDGETS), SIZES) * np.tile(rng.normal(size=SIZES), BUDGETS)
    follows = over + mixed * 0.3 * np.tile(rng.normal(size=SIZES), BUDGETS)
    summed = np.bincount(TRUNK, weights=follows)
    true = own * follows @ follows + shared * summed @ summed
    found = [slope_noise(study(rng, own, shared)).error(follows, TRUNK, 1.0) for _ in range(400)]
    variance = np.array([error**2 for error, _ in found])
    assert variance.mean() == pytest.approx(true, rel=0.12)
    spare = np.median([degrees for _, degrees in found])
    assert 2 / (variance / true).var() == pytest.approx(spare, rel=0.35)


def test_exponents_of_shared_trunks_have_intervals_that_hold_and_are_no_wider_than_need_be():
    held, widths, estimates = [], [], []
    law = LAWS["symmetric"]
    for seed in range(60):
        table = draw(np.random.default_rng(seed), law, GRIDS["demo"], 0.003, 0.9)
        found = fit_isoflop(table, resamples=200, seed=seed).models["mor"].params_law
        low, high = found.interval
        held.append(low <= law.a <= high)
        widths.append(high - low)
        estimates.append(found.exponent)
    assert np.mean(held) >= 0.85  # 0.955 of 200 measured
    assert np.mean(widths) < 1.8 * oracle_width(np.array(estimates))  # 2.6 with noise of its own


def test_without_named_trunks_nothing_changes_and_large_curves_are_left_alone(monkeypatch):
    table = draw(np.random.default_rng(1), LAWS["symmetric"], GRIDS["demo"], 0.003, 0.9)
    blind = table.assign(trunk=None)
    before = fit_isoflop(blind, resamples=200).models["mor"].params_law
    narrow = fit_isoflop(table, resamples=200).models["mor"].params_law
    assert narrow.exponent == before.exponent
    monkeypatch.setattr(slopes, "MOST", 3)
    large = fit_isoflop(table, resamples=200).models["mor"].params_law
    assert narrow.interval[1] - narrow.interval[0] < large.interval[1] - large.interval[0]
    monkeypatch.undo()
    monkeypatch.setattr("analysis.fits.isoflop.slope_noise", pytest.fail)
    assert fit_isoflop(blind, resamples=200).models["mor"].params_law == before
