"""A least-squares parabola of loss in log(params)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Below this bend (relative to the loss) over the window, curvature is rounding, not a minimum.
FLAT = 1e-10


@dataclass(frozen=True)
class Parabola:
    """L = c0 + c1 u + c2 u^2 with u = (log N - centre) / half_width, so |u| <= 1 on the points."""

    log_params: Floats
    loss: Floats
    centre: float
    half_width: float
    coefficients: Floats

    @cached_property
    def design(self) -> Floats:
        """Rows (1, u, u^2), one for each point."""
        u = (self.log_params - self.centre) / self.half_width
        return np.stack([np.ones_like(u), u, u * u], axis=1)

    @cached_property
    def inverse(self) -> Floats:
        """What takes losses to coefficients, (3, points): the pseudo-inverse of the design."""
        return np.asarray(np.linalg.pinv(self.design))

    @property
    def level(self) -> float:
        """Mean loss, nats per token: what a relative error is of."""
        return float(np.abs(self.loss).mean())

    @property
    def convex(self) -> bool:
        """Whether it opens upwards by more than rounding."""
        return bool(self.coefficients[2] > FLAT * np.abs(self.loss).max())

    @property
    def vertex(self) -> float:
        """log(params) where the slope is zero."""
        _, c1, c2 = self.coefficients
        return float(self.centre - 0.5 * self.half_width * c1 / c2)

    @property
    def degrees_of_freedom(self) -> int:
        """Points beyond the three that a parabola always meets: residual degrees of freedom."""
        return len(self.loss) - 3

    @property
    def residuals(self) -> Floats:
        """Measured minus fitted loss, nats per token."""
        return self.loss - self.design @ self.coefficients

    def loss_at(self, params: Floats | float) -> Floats:
        """The fitted loss (nats per token) at these sizes."""
        u = (np.log(params) - self.centre) / self.half_width
        c0, c1, c2 = self.coefficients
        return np.asarray(c0 + c1 * u + c2 * u * u)


def fit_parabola(log_params: Floats, loss: Floats) -> Parabola:
    """Least squares through points sorted by size, with at least three different sizes."""
    low, high = float(log_params[0]), float(log_params[-1])
    centre, half_width = 0.5 * (low + high), 0.5 * (high - low)
    # Centred and scaled: log N near 18 with its square would cost half of the digits.
    blank = Parabola(log_params, loss, centre, half_width, np.zeros(3))
    coefficients: Floats = np.linalg.lstsq(blank.design, loss, rcond=None)[0].astype(float)
    return Parabola(log_params, loss, centre, half_width, coefficients)
