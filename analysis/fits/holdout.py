"""How well a law predicts runs that it has not seen: budget by budget, and above all the top one.

A fit is wanted for larger budgets than were run, so its error at a budget that it has not seen is
worth more than its residuals. Every budget is left out once; leaving out the largest is the
extrapolation. Where budgets do not repeat (runs spread over compute), the tenth of the runs with
the most compute (6 N D) is left out instead.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.fits.parametric.laws import Floats
from analysis.fits.parametric.optimum import LawFit
from analysis.fits.parametric.solver import LARGEST, Problem, polish

TOP_SHARE = 0.1


@dataclass(frozen=True)
class Left:
    """The error of a fit at the points it was not given, in shares of the loss.

    `mean` is signed, predicted over measured minus one: above zero the law was too pessimistic.
    `rms` is None, like `mean`, where too few points were left to fit.
    """

    name: str
    n_points: int
    mean: float | None
    rms: float | None


@dataclass(frozen=True)
class HoldOut:
    """Every budget left out once, and the extrapolation to the top."""

    budgets: tuple[Left, ...]
    top: Left
    top_is_a_budget: bool


def hold_out(fit: LawFit, table: pd.DataFrame) -> HoldOut:
    """Leave out each budget, then the top; `table` has the points of `fit`, in order."""
    budgets = table["budget"].to_numpy(float)
    different = np.unique(budgets)
    repeated = bool(np.isfinite(budgets).all()) and 2 <= len(different) <= len(table) / 2
    if repeated:
        left = tuple(_leave(fit, f"{budget:g}", budgets == budget) for budget in different)
        return HoldOut(left, left[-1], True)
    spent = (table["params"] * table["tokens"]).to_numpy(float)
    number = max(1, round(TOP_SHARE * len(table)))
    top = np.zeros(len(table), bool)
    top[np.argsort(spent, kind="stable")[-number:]] = True
    return HoldOut((), _leave(fit, "top 10 % of 6ND", top), False)


def _leave(fit: LawFit, name: str, out: NDArray[np.bool_]) -> Left:
    problem, number = fit.problem, int(out.sum())
    kept = ~out
    if kept.sum() <= len(fit.theta):
        return Left(name, number, None, None)
    fewer = problem.at(kept)
    # Each basin of the whole fit is a start: without some points another one may be the lowest.
    ended = polish(fewer, fit.ends)
    theta = ended.theta[[int(np.argmin(ended.objective))]]
    error = _error(problem, theta, out)
    return Left(name, number, float(error.mean()), float(np.sqrt(np.mean(error**2))))


def _error(problem: Problem, theta: Floats, out: NDArray[np.bool_]) -> Floats:
    predicted = problem.law.take(out).log_loss(theta)[0]
    return np.asarray(np.expm1(np.minimum(predicted - problem.log_loss[out], LARGEST)))
