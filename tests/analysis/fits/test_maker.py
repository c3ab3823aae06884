"""A thin maker of residuals is the matrix that it stands for."""

import numpy as np
import pytest

from analysis.fits import maker as maker_of
from analysis.fits.maker import of_parabolas
from analysis.fits.noise import Residuals
from analysis.fits.parabola import fit_parabola

SIZES, BUDGETS, UNDER_NONE = 6, 3, 4  # points under no parabola: an edge, a budget of two sizes


@pytest.fixture(params=[False, True], ids=["parabolas", "and a law"])
def made(request, monkeypatch):
    """A maker, the dense matrix, and the trunk of each point."""
    monkeypatch.setattr(maker_of, "BAND", 5)  # several bands, the last one shorter
    rng = np.random.default_rng(0)
    n = SIZES * BUDGETS + UNDER_NONE
    order = rng.permutation(n)
    places = [order[i * SIZES : (i + 1) * SIZES] for i in range(BUDGETS)]
    x = np.sort(rng.normal(size=(BUDGETS, SIZES)), axis=1)
    parabolas = [fit_parabola(row, 2 + row * row) for row in x]
    thin = of_parabolas(parabolas, places, n)
    dense = np.zeros((SIZES * BUDGETS, n))
    for i, (parabola, under) in enumerate(zip(parabolas, places, strict=True)):
        rows = slice(i * SIZES, (i + 1) * SIZES)
        dense[rows, under] = np.eye(SIZES) - parabola.design @ parabola.inverse
    if request.param:
        jacobian = rng.normal(size=(n, 5))
        follows = np.linalg.pinv(jacobian)
        thin = thin.after(jacobian, follows)
        dense = dense @ (np.eye(n) - jacobian @ follows)
    return thin, dense, rng.integers(0, 9, n)


def test_it_takes_errors_to_residuals(made):
    thin, dense, _ = made
    errors = np.random.default_rng(1).normal(size=dense.shape[1])
    assert thin.of(errors) == pytest.approx(dense @ errors)
    places = np.array([0, 7, 8])
    assert thin.added(places) == pytest.approx(dense[places].sum(axis=0))


def test_bands_and_moments_are_those_of_the_matrix(made):
    thin, dense, trunk = made
    member = (trunk[:, None] == np.arange(9)).astype(float)
    a, b = dense @ dense.T, (dense @ member) @ (dense @ member).T
    found = np.vstack([rows for _, rows in thin.bands(trunk)])
    assert found == pytest.approx(b)
    part = Residuals(dense @ np.ones(dense.shape[1]), thin, trunk, np.arange(len(dense)))
    same = (part.trunk[:, None] == part.trunk).astype(float) - np.eye(len(dense))
    expected = [
        *(np.trace(a), np.trace(b), np.sum(same * a), np.sum(same * b)),
        *(np.sum(a * a), np.sum(a * b), np.sum(b * b)),
    ]
    assert list(vars(part.moments).values()) == pytest.approx(expected)


def test_no_residuals_have_no_moments():
    none = np.zeros(0, np.intp)
    part = Residuals(np.zeros(0), of_parabolas([], [], 0), none, none)
    assert set(vars(part.moments).values()) == {0.0}
