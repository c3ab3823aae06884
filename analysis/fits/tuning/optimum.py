"""The best settings of each (model, size, budget): a quadratic in their logarithms, and a skew.

Loss does not rise alike on both sides of the best learning rate, and a parabola through a skew
valley is off by more than its interval: where e^x - 1 - x is the shape, over factors of 4 either
side, by 25 %, and a 95 % interval then holds the truth in 9 % of studies. So all cells of a curve
share a cubic term in each setting, as a share of the loss, where points determine it; a
cell's own quadratic takes the rest. Everything is linear in the losses and fitted at once.

Runs within a factor of 4 of the lowest count, and the five values nearest to it. Far above the
lowest loss no low power describes a valley, and a rate at the edge of what is stable leaps: a run
that lies h above it counts as one whose noise is sqrt(1 + (h / h0)^2) times as large, h0 being 3 %
of the loss.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from analysis.fits import noise
from analysis.fits.maker import Maker
from analysis.fits.parabola import FLAT, Floats
from analysis.fits.tuning.cells import Cell

REACH = np.log(4.0) + 1e-9  # of the window, either side of the lowest run
NEAREST = 5  # values of each setting that count however far they lie
LEAST = 3  # values of each setting
HIGH = 0.03  # of the loss: runs that lie so far above the lowest count half
SPARE = 3  # points beyond the coefficients that a skew needs
STEPS = 30  # of Newton's method

Rows = NDArray[np.intp]


class Found(StrEnum):
    """What the runs of a cell say."""

    ENCLOSED = "enclosed"
    EDGE = "edge"  # best at, or beyond, a value at the end
    OPEN = "open"  # the interval reaches beyond the values tried
    NOT_CONVEX = "not convex"
    TOO_FEW = "too few values"


@dataclass(frozen=True)
class Valley:
    """A cell's part of its curve's fit, as a share of `level` (nats per token): with
    u = (x - centre) / scale, c0 + g u + u' A u + sum of skew_i (x_i - centre_i)^3. The columns of a
    design are 1, u and the products u_i u_j for i <= j; `at` are those of the curve's coefficients
    that are its own, `points` those of the curve's points."""

    rows: Rows  # of the cell's runs
    level: float
    centre: Floats
    scale: Floats
    at: slice
    points: slice


@dataclass(frozen=True)
class CurveFit:
    """All cells of one curve: `valleys` in their order, None for a cell that has too few values;
    `skewed` the settings with a cubic term, whose coefficients are the last."""

    cells: tuple[Cell, ...]
    valleys: tuple[Valley | None, ...]
    skewed: tuple[int, ...]
    coefficients: Floats  # (c,)
    inverse: Floats  # (c, points), of losses that are weighted as their errors are
    residuals: noise.Residuals
    trunk: Rows  # of each point

    def skew(self, coefficients: Floats) -> Floats:
        """The cubic terms (R, settings) of rows of coefficients, zero where there is none."""
        found = np.zeros((len(coefficients), self.cells[0].values.shape[1]))
        if self.skewed:
            found[:, list(self.skewed)] = coefficients[:, -len(self.skewed) :]
        return found


def windowed(cell: Cell) -> Rows:
    """The runs to fit, by number: those near the lowest, else all, else none."""
    lowest = cell.values[np.argmin(cell.loss)]
    kept = np.ones(len(cell.loss), bool)
    for values, centre in zip(cell.values.T, lowest, strict=True):
        away = np.sort(np.abs(np.unique(np.round(values, 9)) - centre))
        reach = max(REACH, away[min(NEAREST, len(away)) - 1] + 1e-8)
        kept &= np.abs(values - centre) <= reach
    for chosen in (np.nonzero(kept)[0], np.arange(len(cell.loss))):
        x = cell.values[chosen]
        enough = all(len(np.unique(np.round(column, 9))) >= LEAST for column in x.T)
        design = _design(x, x.mean(axis=0), np.ones(x.shape[1]))
        if enough and np.linalg.matrix_rank(design) == design.shape[1]:
            return np.asarray(chosen, np.intp)
    return np.array([], np.intp)


def _design(x: Floats, centre: Floats, scale: Floats) -> Floats:
    u = (x - centre) / scale
    pairs = itertools.combinations_with_replacement(range(u.shape[1]), 2)
    return np.stack([np.ones(len(u)), *u.T, *(u[:, i] * u[:, j] for i, j in pairs)], axis=1)


def fit_curve(cells: Sequence[Cell]) -> CurveFit:
    """Least squares of all cells of a curve at once, with a skew in each setting that the points
    tell."""
    valleys: list[Valley | None] = []
    designs, losses, cubes, trunks, weights = [], [], [], [], []
    column = point = 0
    for cell in cells:
        rows = windowed(cell)
        if not len(rows):
            valleys.append(None)
            continue
        x, level = cell.values[rows], float(np.abs(cell.loss[rows]).mean())
        low, high = x.min(axis=0), x.max(axis=0)
        centre, scale = 0.5 * (low + high), 0.5 * (high - low)
        design = _design(x, centre, scale)
        at = slice(column, column + design.shape[1])
        points = slice(point, point + len(rows))
        valleys.append(Valley(rows, level, centre, scale, at, points))
        column, point = at.stop, points.stop
        designs.append(design)
        losses.append(cell.loss[rows] / level)
        cubes.append((x - centre) ** 3)
        weights.append(_weight(cell.loss[rows]))
        trunks.append(cell.trunk[rows])
    settings = cells[0].values.shape[1]
    if not designs:
        nothing = np.zeros(0)
        none = np.zeros(0, np.intp)
        no_maker = Maker(none, np.zeros((0, 0)), np.zeros((0, 0)))
        residuals = noise.Residuals(nothing, no_maker, none, none)
        return CurveFit(
            tuple(cells), tuple(valleys), (), nothing, np.zeros((0, 0)), residuals, residuals.trunk
        )
    design, loss = np.asarray(block_diag(*designs)), np.concatenate(losses)
    design, skewed = _with_skew(design, np.concatenate(cubes), settings)
    weight = np.concatenate(weights)
    design, loss = weight[:, None] * design, weight * loss  # one noise for all points
    inverse = np.linalg.pinv(design)
    trunk = np.concatenate(trunks)
    at_points = np.arange(len(loss))
    maker = Maker(at_points, design, np.asarray(inverse))
    residuals = noise.Residuals(maker.of(loss), maker, trunk, at_points)
    coefficients = np.asarray(inverse @ loss)
    return CurveFit(
        tuple(cells), tuple(valleys), skewed, coefficients, np.asarray(inverse), residuals, trunk
    )


def _weight(loss: Floats) -> Floats:
    """One over how much larger than the lowest run's a run's error is taken to be."""
    high = (loss / loss.min() - 1) / HIGH
    return np.asarray(1 / np.sqrt(1 + high**2))


def _with_skew(design: Floats, cubes: Floats, settings: int) -> tuple[Floats, tuple[int, ...]]:
    """The design with the cubic columns that it does not hold already, and enough to spare."""
    chosen: list[int] = []
    for k in range(settings):
        wider = np.column_stack([design, cubes[:, k]])
        spare = len(wider) - wider.shape[1]
        if spare >= SPARE and np.linalg.matrix_rank(wider) == wider.shape[1]:
            design, chosen = wider, [*chosen, k]
    return design, tuple(chosen)


def minima(valley: Valley, coefficients: Floats, skew: Floats) -> tuple[Floats, Floats, Floats]:
    """Of rows of a cell's coefficients (R, c) and skews (R, k): the best x (R, k), the loss there
    as a share of the level (R,) and its second derivatives in x (R, k, k). NaN where there is no
    minimum."""
    k = len(valley.centre)
    gradient, quadratic = coefficients[:, 1 : k + 1], np.zeros((len(coefficients), k, k))
    pairs = itertools.combinations_with_replacement(range(k), 2)
    for at, (i, j) in enumerate(pairs, start=k + 1):
        quadratic[:, i, j] += coefficients[:, at]
        quadratic[:, j, i] += coefficients[:, at]
    cubic = skew * valley.scale**3
    u, lost = _newton(gradient, quadratic, cubic)
    hessian = quadratic + 6 * (cubic * u)[:, :, None] * np.eye(k)
    lost |= np.linalg.eigvalsh(np.where(np.isfinite(hessian), hessian, 0.0))[:, 0] <= 2 * FLAT
    loss = coefficients[:, 0] + np.einsum("rk,rk->r", gradient, u)
    loss += 0.5 * np.einsum("ri,rij,rj->r", u, quadratic, u) + np.sum(cubic * u**3, axis=1)
    x = valley.centre + valley.scale * u
    curvature = hessian / (valley.scale[:, None] * valley.scale[None, :])
    x[lost], loss[lost], curvature[lost] = np.nan, np.nan, np.nan
    return x, loss, curvature


def _newton(gradient: Floats, quadratic: Floats, cubic: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Where g + H u + 3 cubic u^2 is zero, from the quadratic's own minimum; and which rows have no
    such point with an upward bend on the way."""
    eye = np.eye(gradient.shape[1])
    u, lost = np.zeros_like(gradient), np.zeros(len(gradient), bool)
    for _ in range(STEPS):
        hessian = quadratic + 6 * (cubic * u)[:, :, None] * eye
        lost |= np.linalg.eigvalsh(hessian)[:, 0] <= 2 * FLAT
        safe = np.where(lost[:, None, None], eye, hessian)
        slope = gradient + np.einsum("rij,rj->ri", quadratic, u) + 3 * cubic * u**2
        step = np.linalg.solve(safe, slope[..., None])[..., 0]
        # a step of two half widths at most: from far away a cubic throws Newton's method out
        u = np.where(lost[:, None], 0.0, u - np.clip(step, -2.0, 2.0))
    return u, lost | (np.abs(step) > 1e-6).any(axis=1)


def beyond(cell: Cell, best: Floats) -> tuple[int, str] | None:
    """The first setting whose best value is not between those tried, and on which side."""
    for k, value in enumerate(best):
        low, high = cell.values[:, k].min(), cell.values[:, k].max()
        if not low < value < high:
            return k, "smaller" if value <= low else "larger"
    return None


def lowest_at_edge(cell: Cell) -> tuple[int, str] | None:
    """The first setting in which the lowest run stands at an end of the values tried."""
    return next(_edges(cell), None)


def falling_to_edge(cell: Cell) -> tuple[int, str] | None:
    """The first of them towards whose end the lowest losses fall, over the last three values."""
    for k, side in _edges(cell):
        column = np.round(cell.values[:, k], 9)
        lowest = [cell.loss[column == value].min() for value in np.unique(column)]
        last = lowest[:LEAST][::-1] if side == "smaller" else lowest[-LEAST:]
        if len(last) == LEAST and np.all(np.diff(last) < 0):
            return k, side
    return None


def _edges(cell: Cell) -> Iterator[tuple[int, str]]:
    lowest = cell.values[np.argmin(cell.loss)]
    for k, value in enumerate(lowest):
        low, high = cell.values[:, k].min(), cell.values[:, k].max()
        if value in (low, high) and low < high:
            yield k, "smaller" if value == low else "larger"
