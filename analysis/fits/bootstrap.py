"""Intervals for approach 2: Student's t with the noise pooled over budgets and models.

An isoFLOP grid has four to seven sizes a budget, so one parabola has one to four points to spare
and its own residuals give the noise badly: resampling them covered the true exponent 81 % of the
time with four sizes. The noise of a run as a share of its loss is one number for the whole study
(`analysis.fits.noise`), with the spare points of every parabola behind it. Each draw takes one
value of it (scaled inverse chi) for all budgets and models, and normal noise of that size at every
point: percentiles of what is linear in the losses are then Student's t intervals, and vertices,
slopes and multipliers follow through their own curves. A budget with three sizes takes its noise
from the others.

What the interval does not hold: noise that all sizes of a budget share, the choice of window, and
a model that is much noisier than the others. What it covers is measured
by `benchmarks/coverage_isoflop.py` (docs/coverage.md).
"""

import zlib
from collections.abc import Sequence

import numpy as np

from analysis.fits.noise import Noise
from analysis.fits.parabola import Floats, Parabola

LEVEL = 0.95


def generator(model: str, seed: int) -> np.random.Generator:
    """One stream a model, so that adding a model to a table leaves the others' draws alone."""
    return np.random.default_rng([seed, zlib.crc32(model.encode())])


def scales(noise: Noise, resamples: int, seed: int) -> Floats:
    """What the noise may be, (resamples,): as uncertain as its degrees of freedom say. One draw is
    shared by every budget and model, since they share the noise."""
    rng = generator("noise", seed)
    spread = rng.chisquare(noise.degrees_of_freedom, size=resamples) / noise.degrees_of_freedom
    return np.asarray(noise.relative / np.sqrt(spread))


def errors(points: int, scale: Floats, rng: np.random.Generator) -> Floats:
    """Fresh relative errors of some points, (resamples, points)."""
    return np.asarray(rng.standard_normal((len(scale), points)) * scale[:, None])


def refits(parabola: Parabola, drawn: Floats) -> Floats:
    """Coefficients of the parabola through its points with these errors, (resamples, 3)."""
    # The design is fixed, so refitting every resample is one product with its pseudo-inverse.
    return np.asarray(parabola.coefficients + parabola.level * (drawn @ parabola.inverse.T))


def vertices(parabola: Parabola, fits: Floats) -> Floats:
    """log(params) of each refit's minimum; NaN where it has none among the sizes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        u = -0.5 * fits[:, 1] / fits[:, 2]
    inside = (fits[:, 2] > 0) & (np.abs(u) < 1)
    return np.where(inside, parabola.centre + parabola.half_width * u, np.nan)


def lowest(fits: Floats) -> Floats:
    """The lowest loss of each refit among the sizes (nats per token)."""
    c0, c1, c2 = fits.T
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.where(c2 > 0, np.clip(-0.5 * c1 / c2, -1, 1), -np.sign(c1))
    return np.asarray(c0 + c1 * u + c2 * u * u)


def loss_slope(parabola: Parabola) -> Floats:
    """Change of the loss at the vertex for a relative error of each point, (points,). To first
    order the vertex's own error does not enter: the slope is zero there."""
    u = (parabola.vertex - parabola.centre) / parabola.half_width
    return np.asarray(parabola.level * np.array([1.0, u, u * u]) @ parabola.inverse)


def student_quantile(degrees_of_freedom: float, level: float = LEVEL) -> float:
    """Standard errors on either side of an interval."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, 0.5 * (1 + level)))


def p_value(ratio: float, noise: Noise) -> float:
    """Two-sided, of an estimate that is `ratio` standard errors from zero."""
    from scipy.special import stdtr

    return float(2 * stdtr(noise.degrees_of_freedom, -abs(ratio)))


def p_of_reach(distance: float, reach: float, degrees_of_freedom: float = np.inf) -> float:
    """Two-sided, of an estimate `distance` away from a value, where its 95 % interval ends at
    `reach` from it on that side; normal without degrees of freedom."""
    from scipy.special import ndtr, ndtri, stdtr, stdtrit

    share = 0.5 * (1 + LEVEL)
    if np.isinf(degrees_of_freedom):
        return float(2 * ndtr(-distance / reach * ndtri(share)))
    errors = stdtrit(degrees_of_freedom, share)
    return float(2 * stdtr(degrees_of_freedom, -distance / reach * errors))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that all of them below 0.05 are wrong together at most 5 % of the time (Holm
    1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, float)[order] * (len(p_values) - np.arange(len(p_values)))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(value) for value in adjusted]


def slopes(log_budgets: Floats, log_values: Floats) -> Floats:
    """Least-squares slope of each row of `log_values` (R, budgets) over its finite entries."""
    finite = np.isfinite(log_values)
    n = finite.sum(axis=1, keepdims=True)
    y = np.where(finite, log_values, 0.0)
    x = np.where(finite, log_budgets, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(finite, x - x.sum(axis=1, keepdims=True) / n, 0.0)
        slope = (x * y).sum(axis=1) / (x * x).sum(axis=1)
    return np.where(n[:, 0] >= 2, slope, np.nan)


def percentile_interval(samples: Floats) -> tuple[float, float] | None:
    """The central 95 % of the finite samples; None where fewer than half are finite."""
    finite = samples[np.isfinite(samples)]
    if len(finite) < max(1, len(samples) / 2):
        return None
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)
