"""Intervals for approach 3: resamples of what was drawn, with multinomial weights and warm starts.

What is resampled follows the design (`Design`): single points where they are independent; whole
training trunks where points share one (a cool-down inherits its trunk's luck); budgets or seeds
on request. A group drawn k times weighs k times, and each weighted fit starts at the optimum.

With many groups the interval is the central 95 % of the resamples. Under 40 groups percentiles
come out narrow (92 % instead of 95 with 12 trunks): then it is the estimate +- t x spread, t
Student's with the spare degrees of freedom and the spread (half the central 68 %) widened for the
parameters that the residuals paid for; A, B and E in logs. `benchmarks/coverage.py` measures it:
95 to 99 % of nominal 95 % intervals hold the truth, so they are a little wide rather than narrow.
"""

from dataclasses import dataclass
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

    def spare(self, parameters: int) -> int:
        """Degrees of freedom of the spread: points less parameters, or groups less one."""
        spent = parameters if self.design is Design.ROWS else 1
        return max(1, self.number - spent)


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

    Raises AnalysisError where the points do not tell the groups, or tell only one.
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
    rng = np.random.default_rng(seed)
    chances = np.full(groups.number, 1 / groups.number)
    drawn = rng.multinomial(groups.number, chances, size=resamples)  # (resamples, groups)
    weights = drawn[:, groups.of_point].astype(float)
    # Fewer distinct points than parameters fit exactly: such a draw says nothing.
    weights = weights[(weights > 0).sum(axis=1) > len(fit.theta)]
    if len(weights) < max(2, resamples / 2):
        return nothing
    problem = Problem(fit.problem.law, fit.problem.log_loss, fit.problem.delta, weights)
    ended = polish(problem, np.tile(fit.theta, (len(weights), 1)), steps=60)
    samples = problem.law.values(ended.theta)
    few = groups.number < MANY_GROUPS
    of = {
        name: _student(name, samples[name], fit, groups) if few else percentiles(samples[name])
        for name in names
    }
    method = Method.STUDENT if few else Method.PERCENTILE
    return Intervals(of, groups, resamples, len(weights), method, samples, ended.theta)


def percentiles(samples: Floats) -> Interval:
    """The central 95 %; None unless half of the samples are finite."""
    finite = samples[np.isfinite(samples)]
    if len(finite) < max(2, len(samples) / 2):
        return None
    low, high = np.percentile(finite, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _student(name: str, samples: Floats, fit: LawFit, groups: Groups) -> Interval:
    in_logs = name in fit.problem.law.in_logs
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        values = np.log(samples) if in_logs else samples
    finite = values[np.isfinite(values)]
    if len(finite) < max(2, len(values) / 2):
        return None
    low, high = np.percentile(finite, [16, 84])
    half = 0.5 * (high - low) * student_widening(groups, len(fit.theta))
    centre = np.log(fit.values[name]) if in_logs else fit.values[name]
    ends = (float(centre - half), float(centre + half))
    return cast(Interval, tuple(np.exp(np.clip(ends, -700, 700)).tolist())) if in_logs else ends


def student_widening(groups: Groups, parameters: int) -> float:
    """t quantile x sqrt(n / (n - p)) for rows; x sqrt(G / (G - 1)) for G groups of points."""
    spare = groups.spare(parameters)
    return float(student_quantile(spare) * np.sqrt(groups.number / spare))
