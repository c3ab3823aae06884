"""The noise of an exponent where runs share trunks.

What the budgets of a trunk share moves their minima alike and mostly cancels in a slope over
budgets, so the noise of single losses makes the interval of an exponent too wide (2.6 times an
oracle's on the demo's grid at a share of 0.9, 1.7 times at 0.5). To first order the variance of an
exponent is u |g|^2 + v |T'g|^2 with g its change for a relative error of each point, T summing the
points of a trunk, and u and v the variances of a run's own noise and of its trunk's. Two moments of
the residuals (sum of squares, sum of products within a trunk) give both, 0 at least; what they give
is a quadratic form of residuals, whose degrees of freedom follow by Satterthwaite (1946). The fewer
budgets and sizes, the fewer they are: four on Table 9's grid (docs/coverage.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.fits.noise import Residuals, two_moments, variances
from analysis.fits.parabola import Floats

MOST = 2000  # residuals of one curve: above, points^2 numbers are too many
LEAST = 0.05  # of the variance that independent noise would give: less is luck


@dataclass(frozen=True)
class SlopeNoise:
    """The two variances of a study, and how well its residuals know them."""

    parts: tuple[Residuals, ...]

    @cached_property
    def _moments(self) -> tuple[Floats, Floats] | None:
        return two_moments(self.parts)

    @cached_property
    def _traces(self) -> Floats:
        """tr(S S), tr(P S S) and tr(P S P S) for S = A, (A, B), B: (3, 3), summed over parts."""
        return np.asarray(sum((_traces(part) for part in self.parts), np.zeros((3, 3))))

    def error(
        self, follows: Floats, trunk: NDArray[np.intp], independent: float
    ) -> tuple[float, float] | None:
        """Standard error of what follows the points' errors so, and its degrees of freedom.

        `follows` and `trunk` are (points,); `independent` is the variance of a run's noise as if
        none were shared. None where the residuals do not tell the two apart.
        """
        own = float(follows @ follows)
        _, number = np.unique(trunk, return_inverse=True)
        shared = float(np.sum(np.bincount(number, weights=follows) ** 2))
        if self._moments is None or not own > 0:
            return None
        expected, seen = self._moments
        weights = np.linalg.solve(expected.T, np.array([own, shared]))
        u, v = variances(expected, seen)
        variance = max(float(u * own + v * shared), LEAST * independent * own)
        squared, once, twice = self._traces @ np.array([u * u, u * v, v * v])
        spread = weights[0] ** 2 * squared + 2 * weights[0] * weights[1] * once
        spread += weights[1] ** 2 * twice
        if not spread > 0:
            return None
        return float(np.sqrt(variance)), float((u * own + v * shared) ** 2 / spread)


def slope_noise(parts: Sequence[Residuals]) -> SlopeNoise | None:
    """The noise of slopes; None where a curve has too many points."""
    if any(len(part.values) > MOST for part in parts):
        return None
    return SlopeNoise(tuple(parts))


def _traces(part: Residuals) -> Floats:
    points = np.arange(len(part.trunk_of_points))
    a, b = (
        np.vstack([rows for _, rows in part.maker.bands(group)])
        for group in (points, part.trunk_of_points)
    )
    pa, pb = (_paired(matrix, part.trunk) for matrix in (a, b))
    return np.array(
        [
            [np.sum(a * a), 2 * np.sum(a * b), np.sum(b * b)],
            [np.sum(pa * a), np.sum(pa * b) + np.sum(pb * a), np.sum(pb * b)],
            [np.sum(pa * pa.T), 2 * np.sum(pa * pb.T), np.sum(pb * pb.T)],
        ]
    )


def _paired(matrix: Floats, trunk: NDArray[np.intp]) -> Floats:
    """P @ matrix: each row the sum of the other rows of its trunk."""
    _, number = np.unique(trunk, return_inverse=True)
    added = np.zeros((number.max(initial=-1) + 1, matrix.shape[1]))
    np.add.at(added, number, matrix)
    return np.asarray(added[number] - matrix)
