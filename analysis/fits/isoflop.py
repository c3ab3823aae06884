"""Approach 2: a parabola per budget, then a power law through the minima.

Source: Hoffmann et al. 2022 (arXiv 2203.15556) section 3.2; Porian et al. 2024 (arXiv 2406.19146)
for fitting near the minimum only. At each budget C the loss is fitted as

    L(N) = c0 + c1 u + c2 u^2,   u = (log N - centre) / half width,   by least squares,

whose vertex is the compute-optimal size N_opt(C). Then N_opt = k C^a and D_opt = k' C^b by ordinary
least squares in log-log. A minimum that the points do not enclose is named and kept out of the law.

Units: budgets in FLOPs (under the convention of the points), loss in nats per token.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cautions import Caution, Code
from analysis.fits import bootstrap
from analysis.fits.parabola import Floats, Parabola, fit_parabola
from analysis.formatting import compute, count, listing, plural
from analysis.points.table import curve_of

# Far from the minimum the loss is no parabola in log N, so a wide grid is cut to its middle.
DEFAULT_WINDOW = 3
WIDE_GRID = 7
LOST = 0.05  # share of resamples without a minimum from which an interval is weak
FEW_SPARE = 5  # Student's t is 1.3 times the normal's or more below it


class Status(StrEnum):
    """Whether a parabola has a minimum that its points enclose."""

    INTERIOR = "interior"
    EDGE = "edge"
    NOT_CONVEX = "not convex"
    TOO_FEW = "too few points"


@dataclass(frozen=True)
class Minimum:
    """One model at one budget.

    `params`, `tokens` (at the vertex) and `loss` are None unless the status is interior: an
    extrapolated minimum is not a number to quote. `lowest_*` is the best size that was measured.
    `n_points` counts the points under the parabola.
    """

    budget: float
    status: Status
    reason: str
    n_points: int
    lowest_params: float
    lowest_loss: float
    params: float | None = None
    tokens: float | None = None
    loss: float | None = None
    parabola: Parabola | None = None
    tokens_line: tuple[float, float] | None = None
    params_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient * C^exponent; all None where it could not be fitted."""

    exponent: float | None = None
    coefficient: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ModelFrontier:
    """What approach 2 says of one model: N_opt ~ C^a (`params_law`), D_opt ~ C^b (`tokens_law`)."""

    model: str
    minima: tuple[Minimum, ...]
    params_law: PowerLaw
    tokens_law: PowerLaw
    warnings: tuple[Caution, ...]

    @property
    def interior(self) -> tuple[Minimum, ...]:
        """The minima that enter the laws."""
        return tuple(m for m in self.minima if m.status is Status.INTERIOR)


@dataclass(frozen=True)
class IsoflopResult:
    """A frontier for each model, the noise that they share, and what the fit was asked."""

    models: dict[str, ModelFrontier]
    n_points: int
    window: int | None
    resamples: int
    seed: int
    noise: bootstrap.Noise


def fit_isoflop(
    table: pd.DataFrame, *, window: int | None = None, resamples: int = 1000, seed: int = 0
) -> IsoflopResult:
    """Fit every model of a table of points (see `analysis.points.table`).

    `window` K keeps the K nearest sizes on either side of the lowest; None keeps 3 where a budget
    has more than 7 sizes and all otherwise. `resamples` 0 gives no intervals.
    """
    minima = {
        str(model): [fit_minimum(rows, window=window) for _, rows in points.groupby("budget")]
        for model, points in table.groupby(curve_of(table), sort=True)
    }
    enclosed = [m for group in minima.values() for m in group if m.params is not None]
    noise = bootstrap.pool(m.parabola for m in enclosed if m.parabola)
    models = {
        name: _frontier(name, of_model, noise, resamples, seed) for name, of_model in minima.items()
    }
    return IsoflopResult(models, len(table), window, resamples, seed, noise)


def _frontier(
    model: str, found: list[Minimum], noise: bootstrap.Noise, resamples: int, seed: int
) -> ModelFrontier:
    """The laws through the interior minima of one model, with intervals."""
    vertices = _vertices(model, found, noise, resamples, seed)
    minima = tuple(_with_interval(m, vertices.get(m.budget)) for m in found)
    refused = [m for m in minima if m.status is not Status.INTERIOR]
    warnings = [
        Caution(
            Code.NO_MINIMUM,
            f"Budget {compute(m.budget)} has no minimum ({m.status}): {m.reason}.",
            model,
        )
        for m in refused
    ]
    interior = [m for m in minima if m.status is Status.INTERIOR]
    if len(interior) < 2:
        counted = f"{len(interior)} of {plural(len(minima), 'budget')}"
        reason = f"{counted} with an interior minimum, and a law needs two."
        warnings.append(Caution(Code.NO_EXPONENT, f"No exponent: {reason}", model, reason))
        return ModelFrontier(model, minima, PowerLaw(), PowerLaw(), tuple(warnings))
    if len(interior) == 2:
        warnings.append(
            Caution(
                Code.TWO_BUDGETS,
                "The exponents rest on two budgets: a line through two points always fits.",
                model,
            )
        )
    budgets = np.array([m.budget for m in interior])
    sizes = np.array([m.params for m in interior], float)
    tokens = np.array([m.tokens for m in interior], float)
    intervals, weak = _intervals(model, interior, vertices, noise, resamples)
    return ModelFrontier(
        model,
        minima,
        fit_power_law(budgets, sizes, intervals[0]),
        fit_power_law(budgets, tokens, intervals[1]),
        (*warnings, *weak),
    )


def fit_minimum(points: pd.DataFrame, *, window: int | None = None) -> Minimum:
    """The parabola and its status for the points of one model at one budget."""
    # A total order, so that no sum depends on the order of the rows.
    points = points.sort_values(["params", "loss", "tokens"])
    params, loss = points["params"].to_numpy(float), points["loss"].to_numpy(float)
    budget = float(points["budget"].iloc[0])
    sizes, size_of = np.unique(params, return_inverse=True)
    # Seeds of one size count once when the lowest size is looked for.
    mean_loss = np.bincount(size_of, weights=loss) / np.bincount(size_of)
    lowest = int(np.argmin(mean_loss))
    inside = _window(size_of, lowest, len(sizes), window)
    measured = float(sizes[lowest]), float(mean_loss[lowest])
    if len(np.unique(size_of[inside])) < 3:
        reason = f"{plural(len(sizes), 'size')} tested, a parabola needs three"
        return Minimum(budget, Status.TOO_FEW, reason, int(inside.sum()), *measured)
    parabola = fit_parabola(np.log(params[inside]), loss[inside])
    status, reason = _judge(parabola, sizes, lowest)
    if status is not Status.INTERIOR:
        return Minimum(budget, status, reason, int(inside.sum()), *measured, parabola=parabola)
    vertex = parabola.vertex
    tokens_line = _line(np.log(params[inside]), np.log(points["tokens"].to_numpy(float)[inside]))
    return Minimum(
        budget,
        status,
        reason,
        int(inside.sum()),
        *measured,
        params=float(np.exp(vertex)),
        tokens=float(np.exp(tokens_line[0] + tokens_line[1] * vertex)),
        loss=float(parabola.loss_at(np.exp(vertex))),
        parabola=parabola,
        tokens_line=tokens_line,
    )


def _window(
    size_of: NDArray[np.intp], lowest: int, n_sizes: int, window: int | None
) -> NDArray[np.bool_]:
    if window is None and n_sizes <= WIDE_GRID:
        return np.ones(len(size_of), bool)
    return np.abs(size_of - lowest) <= (DEFAULT_WINDOW if window is None else window)


def _judge(parabola: Parabola, sizes: Floats, lowest: int) -> tuple[Status, str]:
    if not parabola.convex:
        return Status.NOT_CONVEX, "the parabola through the points opens downwards or is flat"
    if lowest in (0, len(sizes) - 1):
        end = "smallest" if lowest == 0 else "largest"
        return Status.EDGE, f"the lowest loss is at the {end} size tested, {count(sizes[lowest])}"
    if not parabola.log_params[0] < parabola.vertex < parabola.log_params[-1]:
        side = "below" if parabola.vertex <= parabola.log_params[0] else "above"
        return Status.EDGE, f"the parabola's vertex lies {side} the sizes it is fitted to"
    return Status.INTERIOR, "the points enclose the minimum"


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Intercept and slope of the least-squares line."""
    slope = float(np.dot(x - x.mean(), y - y.mean()) / np.dot(x - x.mean(), x - x.mean()))
    return float(y.mean() - slope * x.mean()), slope


def fit_power_law(
    budgets: Floats, values: Floats, interval: tuple[float, float] | None = None
) -> PowerLaw:
    """values = coefficient * budgets^exponent, by ordinary least squares in log-log."""
    intercept, slope = _line(np.log(budgets), np.log(values))
    return PowerLaw(slope, float(np.exp(intercept)), interval)


Interval = tuple[float, float] | None


def _vertices(
    model: str, minima: list[Minimum], noise: bootstrap.Noise, resamples: int, seed: int
) -> dict[float, Floats]:
    """Resampled log N_opt of each enclosed minimum by budget; none without noise or resamples."""
    enclosed = {m.budget: m.parabola for m in minima if m.params is not None and m.parabola}
    if resamples == 0 or not noise.known or not enclosed:
        return {}
    scale = bootstrap.scales(noise, resamples, seed)
    drawn = bootstrap.resample_vertices(
        list(enclosed.values()), scale, bootstrap.generator(model, seed)
    )
    return dict(zip(enclosed, drawn.T, strict=True))


def _with_interval(minimum: Minimum, vertices: Floats | None) -> Minimum:
    """An interval of N_opt only where nearly all resamples keep the minimum enclosed."""
    if vertices is None or np.isnan(vertices).mean() > LOST:
        return minimum
    ends = bootstrap.percentile_interval(vertices)
    assert ends is not None
    return replace(minimum, params_interval=(float(np.exp(ends[0])), float(np.exp(ends[1]))))


def _intervals(
    model: str,
    interior: list[Minimum],
    drawn: dict[float, Floats],
    noise: bootstrap.Noise,
    resamples: int,
) -> tuple[tuple[Interval, Interval], list[Caution]]:
    """95 % intervals of a and b, and their warnings."""
    if resamples == 0:
        return (None, None), []
    if not noise.known:
        exact = listing([compute(m.budget) for m in interior])
        return (None, None), [
            Caution(
                Code.NO_INTERVAL,
                f"No interval: at {exact} the parabola goes exactly through its three points, and "
                "no budget of the study has a point to spare that would tell the noise; a fourth "
                "size or a second seed at one of them gives one.",
                model,
            )
        ]
    warnings = []
    if noise.degrees_of_freedom < FEW_SPARE:
        warnings.append(
            Caution(
                Code.WEAK_INTERVAL,
                f"Weak interval: the noise is told by {plural(noise.degrees_of_freedom, 'point')} "
                "to spare in the whole study, so intervals are wide; more sizes, seeds or "
                "budgets sharpen them.",
                model,
            )
        )
    log_budgets = np.log([m.budget for m in interior])
    lines = np.array([m.tokens_line for m in interior])
    vertices = np.stack([drawn[m.budget] for m in interior], axis=1)
    lost = float(np.isnan(vertices).any(axis=1).mean())
    if lost > LOST:
        warnings.append(
            Caution(
                Code.WEAK_INTERVAL,
                f"Weak interval: {lost:.0%} of the resamples lose a minimum and use the other "
                "budgets.",
                model,
            )
        )
    a = bootstrap.percentile_interval(bootstrap.slopes(log_budgets, vertices))
    b = bootstrap.percentile_interval(
        bootstrap.slopes(log_budgets, lines[:, 0] + lines[:, 1] * vertices)
    )
    if a is None:
        warnings.append(
            Caution(
                Code.NO_INTERVAL,
                "No interval: fewer than half of the resamples keep two minima.",
                model,
            )
        )
    return (a, b), warnings
