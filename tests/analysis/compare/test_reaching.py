"""A baseline that falls as E + K C^-gamma is read off exactly, between its budgets and beyond."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.compare.equal_compute import compare
from analysis.compare.reaching import LEAST, Curves, baseline_of
from analysis.fits.debias import refused
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.minimum import Status
from analysis.points.table import tidy

LAW = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}  # Hoffmann et al. 2022


def frontier(losses: dict[float, float]) -> tuple[SimpleNamespace, list[SimpleNamespace]]:
    """A model whose minima are not corrected by a law."""
    minima = [
        SimpleNamespace(budget=at, loss=loss, lowest_loss=loss, status=Status.INTERIOR)
        for at, loss in losses.items()
    ]
    samples = {at: np.array([loss, loss]) for at, loss in losses.items()}
    drawn = SimpleNamespace(loss=samples, floor=None)
    return SimpleNamespace(correction=refused(""), drawn=drawn), minima


@given(
    floor=st.floats(0, 2.5),
    gamma=st.floats(0.02, 0.6),
    spacing=st.floats(1.5, 100),
    count=st.integers(LEAST, 6),
    k=st.floats(0.3, 4),
)
@settings(max_examples=100, deadline=None)
def test_what_a_curve_with_a_floor_reaches(floor, gamma, spacing, count, k):
    at = 1e18 * spacing ** np.arange(count)

    def loss(compute):
        return floor + (compute / 1e18) ** -gamma

    own, minima = frontier({float(budget): float(loss(budget)) for budget in at})
    baseline = baseline_of(own, minima, at)
    for budget in at:
        found, interval, outside = baseline.multiplier(
            float(loss(k * budget)), np.full(2, loss(k * budget)), float(budget)
        )
        assert found == pytest.approx(k, rel=1e-3)
        assert interval == pytest.approx((k, k), rel=1e-3)
        if min(abs(np.log(k * budget / at))) > 1e-3:
            assert outside == (not at[0] < k * budget < at[-1])
        there = baseline.curve.losses_at(float(k * budget))[0]
        assert there == pytest.approx(loss(k * budget), rel=1e-4)


def test_two_minima_without_a_law_give_k_no_interval():
    """Any floor goes through them, and k depends on it."""
    at = np.array([1e18, 1e20])
    own, minima = frontier({1e18: 3.0, 1e20: 2.5})
    k, interval, outside = baseline_of(own, minima, at).multiplier(2.8, np.full(2, 2.8), 1e18)
    assert k is not None
    assert k > 1
    assert interval is None
    assert not outside


def test_at_the_floor_and_where_it_is_flat_nothing_is_reached():
    at = np.array([1e18, 1e19, 1e20])
    falling = Curves(at, np.array([[3.0, 2.5, 2.3]]), np.array([2.0]))
    assert np.isnan(falling.reaching(np.array([2.0]))[0])
    assert np.isnan(falling.reaching(np.array([1.5]))[0])
    flat = Curves(at, np.array([[3.0, 3.0, 3.0]]), np.array([2.0]))
    assert np.isnan(flat.reaching(np.array([2.9]))[0])
    one = Curves(at[:1], np.array([[3.0]]), np.array([0.0]))
    assert np.isnan(one.reaching(np.array([2.9]))[0])


def study(budgets: list[float], k: float, noise: float) -> pd.DataFrame:
    """Two models under one law; mor reaches with D tokens what vanilla reaches with k D."""
    rng = np.random.default_rng(0)
    rows = []
    for model, gain in (("vanilla", 1.0), ("mor", k)):
        for budget in budgets:
            best = 1.345 * (budget / 6) ** 0.4516
            for params in best * np.geomspace(0.25, 4, 7):
                tokens = budget / (6 * params)
                loss = LAW["E"] + LAW["A"] * params ** -LAW["alpha"]
                loss += LAW["B"] * (gain * tokens) ** -LAW["beta"]
                rows.append(
                    {"model": model, "budget": budget, "params": params, "tokens": tokens,
                     "loss": loss * np.exp(noise * rng.standard_normal()),
                     "source": f"line {len(rows)}"}
                )  # fmt: skip
    return tidy(pd.DataFrame(rows), ("trunk",))


@pytest.mark.parametrize(
    "budgets", [[1e18, 1e19, 1e20], [1e18, 1e20], [2e18, 5e18, 1.65e19]], ids=str
)
def test_a_multiplier_of_two_comes_back_from_any_spacing(budgets):
    """Lines in log loss say 2.26 between budgets a decade apart, and 1.70 beyond them."""
    result = fit_isoflop(study(budgets, 2.0, 0.0005), resamples=200)
    for told in compare(result, "vanilla").comparisons:
        assert told.multiplier == pytest.approx(2.0, rel=0.03)
        low, high = told.multiplier_interval
        assert low < 2.0 < high
        assert high / low < 1.25
        assert told.extrapolated == (told.budget * 2 > budgets[-1])
