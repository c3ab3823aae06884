"""The best settings of one (model, size, budget): a quadratic in their logarithms.

Loss rises steeply above the best learning rate and slowly below it, so the quadratic is fitted
within a factor of 4 of the lowest run where enough runs stand there. An optimum is named only where
the runs enclose it: it lies between the values tried, and so does its 95 % interval where the
lowest run stands at an edge.
"""

import itertools
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from analysis.fits.parabola import FLAT, Floats
from analysis.fits.tuning.cells import Cell

REACH = np.log(4.0) + 1e-9  # of the window, either side of the lowest run
LEAST = 3  # values of each setting


class Found(StrEnum):
    """What the runs of a cell say."""

    ENCLOSED = "enclosed"
    EDGE = "edge"  # best at, or beyond, a value at the end
    OPEN = "open"  # the interval reaches beyond the values tried
    NOT_CONVEX = "not convex"
    TOO_FEW = "too few values"


@dataclass(frozen=True)
class Quadratic:
    """c0 + g u + u' A u with u = (x - centre) / scale; the design's columns are 1, u, and the
    products u_i u_j for i <= j. `rows` are the runs that it is fitted to."""

    rows: Floats
    centre: Floats
    scale: Floats
    coefficients: Floats
    inverse: Floats  # (coefficients, runs)
    maker: Floats  # (runs, runs) what takes losses to residuals

    @property
    def degrees_of_freedom(self) -> int:
        return self.inverse.shape[1] - self.inverse.shape[0]


def windowed(cell: Cell) -> Floats:
    """The runs to fit, as numbers: those near the lowest, else all."""
    near = np.abs(cell.values - cell.values[np.argmin(cell.loss)]) <= REACH
    rows = np.nonzero(near.all(axis=1))[0]
    for chosen in (rows, np.arange(len(cell.loss))):
        x = cell.values[chosen]
        enough = all(len(np.unique(np.round(column, 9))) >= LEAST for column in x.T)
        design = _design(x, x.mean(axis=0), np.ones(x.shape[1]))
        if enough and np.linalg.matrix_rank(design) == design.shape[1]:
            return np.asarray(chosen)
    return np.array([], int)


def fit(cell: Cell) -> Quadratic | None:
    """Least squares; None where a setting has fewer than three values, or they do not tell the
    quadratic."""
    rows = windowed(cell)
    if not len(rows):
        return None
    x = cell.values[rows]
    low, high = x.min(axis=0), x.max(axis=0)
    centre, scale = 0.5 * (low + high), 0.5 * (high - low)
    design = _design(x, centre, scale)
    inverse = np.linalg.pinv(design)
    maker = np.eye(len(rows)) - design @ inverse
    coefficients = np.asarray(inverse @ cell.loss[rows])
    return Quadratic(rows, centre, scale, coefficients, np.asarray(inverse), np.asarray(maker))


def _design(x: Floats, centre: Floats, scale: Floats) -> Floats:
    u = (x - centre) / scale
    pairs = itertools.combinations_with_replacement(range(u.shape[1]), 2)
    return np.stack([np.ones(len(u)), *u.T, *(u[:, i] * u[:, j] for i, j in pairs)], axis=1)


def minima(fitted: Quadratic, coefficients: Floats) -> tuple[Floats, Floats, Floats]:
    """Of each row of coefficients (R, c): the best x (R, k), its loss (R,) and the second
    derivatives in x (R, k, k). NaN where there is no minimum."""
    coefficients = np.atleast_2d(coefficients)
    k = len(fitted.centre)
    gradient = coefficients[:, 1 : k + 1]
    hessian = np.zeros((len(coefficients), k, k))
    pairs = itertools.combinations_with_replacement(range(k), 2)
    for at, (i, j) in enumerate(pairs, start=k + 1):
        hessian[:, i, j] += coefficients[:, at]
        hessian[:, j, i] += coefficients[:, at]
    least = np.linalg.eigvalsh(hessian)[:, 0]
    convex = least > 2 * FLAT * np.abs(coefficients[:, 0])
    safe = np.where(convex[:, None, None], hessian, np.eye(k))
    u = -np.linalg.solve(safe, gradient[..., None])[..., 0]
    loss = coefficients[:, 0] + 0.5 * np.einsum("rk,rk->r", gradient, u)
    curvature = hessian / (fitted.scale[:, None] * fitted.scale[None, :])
    x = fitted.centre + fitted.scale * u
    gone = ~convex
    x[gone], loss[gone], curvature[gone] = np.nan, np.nan, np.nan
    return x, loss, curvature


def beyond(cell: Cell, best: Floats) -> tuple[int, str] | None:
    """The first setting whose best value is not between those tried, and on which side."""
    for k, value in enumerate(best):
        low, high = cell.values[:, k].min(), cell.values[:, k].max()
        if not low < value < high:
            return k, "smaller" if value <= low else "larger"
    return None


def lowest_at_edge(cell: Cell) -> tuple[int, str] | None:
    """The first setting in which the lowest run stands at an end of the values tried."""
    lowest = cell.values[np.argmin(cell.loss)]
    for k, value in enumerate(lowest):
        low, high = cell.values[:, k].min(), cell.values[:, k].max()
        if value in (low, high) and low < high:
            return k, "smaller" if value == low else "larger"
    return None
