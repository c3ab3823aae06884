"""Intervals for approach 3: resamples of what was drawn, with multinomial weights and warm starts.

What is resampled follows the design (`Design`): single points where they are independent; whole
training trunks where points share one (a cool-down inherits its trunk's luck); budgets or seeds
on request. A group drawn k times weighs k times, and each weighted fit starts at the optimum.

With many groups the interval is the central 95 % of the resamples. With under 40 points of their
own, drawing points again loses some of the few that hold an exponent, and the interval is two to
three times as wide as need be: there the points stay and each draw has fresh normal noise about the
fit, of the residuals' size, itself as uncertain as its degrees of freedom say; the central 95 % is
then a Student's t interval. With under 40 trunks, budgets or seeds percentiles come out narrow
(92 % instead of 95 with 12 trunks): it is the estimate +- t x spread, t being Student's with one
degree of freedom less than groups and the spread half the central 68 %; A, B and E in logs.
`benchmarks/coverage.py` measures how often each holds the truth and how wide it is.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import AnalysisError
from analysis.fits.bootstrap import LEVEL, student_quantile
from analysis.fits.parametric.laws import Floats
from analysis.fits.parametric.optimum import LawFit
from analysis.fits.parametric.solver import Problem, polish
from analysis.points.table import curve_of

MANY_GROUPS = 40
Interval = tuple[float, float] | None


class Design(StrEnum):
    """What is drawn again."""

    ROWS = "rows"
    BUDGETS = "budgets"
    TRUNKS = "trunks"
    SEEDS = "seeds"


class Method(StrEnum):
    """How an interval is read off the resamples."""

    PERCENTILE = "percentile"
    NOISE = "noise"
    STUDENT = "student"
    NONE = "none"


@dataclass(frozen=True)
class Groups:
    """Which group each point belongs to, numbered from 0."""

    design: Design
    of_point: NDArray[np.intp]

    @property
    def number(self) -> int:
        """How many groups there are."""
        return int(self.of_point.max()) + 1


@dataclass(frozen=True)
class Intervals:
    """95 % intervals by parameter name; `samples` are the resampled values behind them."""

    of: dict[str, Interval]
    groups: Groups
    resamples: int
    used: int
    method: Method
    samples: dict[str, Floats]
    thetas: Floats


def group_points(table: pd.DataFrame, design: str) -> Groups:
    """Groups by name, or for `auto` trunks where points share one and rows otherwise.

    Raises AnalysisError where the points do not give the groups, or only one.
    """
    if design == "auto":
        shared = table["trunk"].notna() & table.duplicated("trunk", keep=False)
        design = "trunks" if shared.any() else "rows"
    if design == "rows":
        return Groups(Design.ROWS, np.arange(len(table)))
    column = {"budgets": "budget", "trunks": "trunk", "seeds": "seed"}[design]
    known = table[column]
    if design == "budgets" and known.notna().all() and "r" in table:
        # A cell of the joint law: one budget at one depth, routed depths to one digit.
        known = known.map("{:g}".format) + curve_of(table) + table["r"].map(" r {:.1f}".format)
    if column != "trunk" and known.isna().any():
        raise AnalysisError(
            f"--resample {design} needs the column {column} at every point and "
            f"{int(known.isna().sum())} of {len(table)} have none: choose another."
        )
    # A run that was trained from scratch is a trunk of its own.
    alone = pd.Series([f"row {row}" for row in range(len(table))], index=table.index)
    codes = pd.factorize(known.where(known.notna(), alone).astype(str))[0]
    if codes.max() < 1:
        raise AnalysisError(
            f"--resample {design} needs at least two {design} and the points have one: "
            "choose another."
        )
    return Groups(Design(design), codes)


def intervals(fit: LawFit, groups: Groups, resamples: int, seed: int) -> Intervals:
    """Refit `resamples` weighted copies from the optimum and read off the intervals."""
    names = (*fit.problem.law.parameters, *fit.problem.law.derived_names)
    nothing = Intervals(
        dict.fromkeys(names), groups, resamples, 0, Method.NONE, {}, np.empty((0, len(fit.theta)))
    )
    if resamples == 0:
        return nothing
    few = groups.number < MANY_GROUPS
    if few and groups.design is Design.ROWS:
        method, problem, used = Method.NOISE, _noisy(fit, resamples, seed), resamples
    else:
        method = Method.STUDENT if few else Method.PERCENTILE
        weights = _drawn_again(fit, groups, resamples, seed)
        problem = replace(fit.problem, weights=weights)
        used = len(weights)
        if used < max(2, resamples / 2):
            return nothing
    ended = polish(problem, np.tile(fit.theta, (used, 1)), steps=60)
    samples = problem.law.values(ended.theta)
    of = {name: _interval(name, samples[name], fit, method, groups) for name in names}
    return Intervals(of, groups, resamples, used, method, samples, ended.theta)


def _noisy(fit: LawFit, resamples: int, seed: int) -> Problem:
    """The fitted losses with fresh noise, (resamples, points), as large as the residuals."""
    rng = np.random.default_rng(seed)
    spare = fit.problem.points - len(fit.theta)
    scale = np.sqrt(np.sum(fit.residuals**2) / rng.chisquare(spare, size=(resamples, 1)))
    errors = scale * rng.standard_normal((resamples, fit.problem.points))
    return replace(fit.problem, log_loss=fit.problem.log_loss - fit.residuals + errors)


def _drawn_again(fit: LawFit, groups: Groups, resamples: int, seed: int) -> Floats:
    """How often each point counts where groups are drawn with replacement, (draws, points)."""
    rng = np.random.default_rng(seed)
    chances = np.full(groups.number, 1 / groups.number)
    drawn = rng.multinomial(groups.number, chances, size=resamples)  # (resamples, groups)
    weights = drawn[:, groups.of_point].astype(float)
    # Fewer distinct points than parameters fit exactly: such a draw says nothing.
    return np.asarray(weights[(weights > 0).sum(axis=1) > len(fit.theta)])


def percentiles(samples: Floats, level: float = LEVEL) -> Interval:
    """The central 95 % or `level`; None unless half of the samples are finite."""
    finite = samples[np.isfinite(samples)]
    if len(finite) < max(2, len(samples) / 2):
        return None
    low, high = np.percentile(finite, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _interval(name: str, samples: Floats, fit: LawFit, method: Method, groups: Groups) -> Interval:
    if name not in fit.problem.law.in_logs or method is not Method.STUDENT:
        return _read(samples, fit.values[name], method, groups)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        ends = _read(np.log(samples), float(np.log(fit.values[name])), method, groups)
    return ends and cast(Interval, tuple(np.exp(np.clip(ends, -700, 700)).tolist()))


def interval_of(
    samples: Floats, estimate: float, found: Intervals, level: float = LEVEL
) -> Interval:
    """What follows from the parameters, read off its resamples as their own intervals are."""
    return _read(samples, estimate, found.method, found.groups, level)


def _read(
    samples: Floats, estimate: float, method: Method, groups: Groups, level: float = LEVEL
) -> Interval:
    if method is not Method.STUDENT:
        return percentiles(samples, level)
    finite = samples[np.isfinite(samples)]
    if len(finite) < max(2, len(samples) / 2):
        return None
    low, high = np.percentile(finite, [16, 84])
    half = 0.5 * (high - low) * student_widening(groups, level)
    return float(estimate - half), float(estimate + half)


def student_widening(groups: Groups, level: float = LEVEL) -> float:
    """Student's t quantile x sqrt(G / (G - 1)) for G groups of points."""
    spare = groups.number - 1
    return float(student_quantile(spare, level) * np.sqrt(groups.number / spare))
