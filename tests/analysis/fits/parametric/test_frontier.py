"""The best size, the best loss and the bend there, against the law itself along one budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.fits.parametric.frontier import bend, best_log_loss, best_size
from analysis.fits.parametric.laws import Chinchilla

PLANE = (-np.log(6), -1.0, 1.0)  # C = 6 N D


@given(
    alpha=st.floats(0.2, 0.7),
    beta=st.floats(0.2, 0.7),
    floor=st.floats(-2, 1),
    log_budget=st.floats(np.log(1e17), np.log(1e22)),
)
def test_the_bend_is_that_of_the_law_at_its_best_size(alpha, beta, floor, log_budget):
    theta = np.array([[6.0, alpha, 7.0, beta, floor]])
    size = best_size(theta, PLANE, log_budget)[0]
    at = size + 0.01 * np.arange(-1, 2)
    losses = Chinchilla(at, log_budget - np.log(6) - at).log_loss(theta)[0]
    assert losses[1] == pytest.approx(best_log_loss(theta, PLANE, log_budget)[0], rel=1e-12)
    second = (losses[0] - 2 * losses[1] + losses[2]) / 0.01**2
    assert bend(theta, PLANE, log_budget)[0] == pytest.approx(second, rel=1e-3)
    assert losses[1] < min(losses[0], losses[2])
