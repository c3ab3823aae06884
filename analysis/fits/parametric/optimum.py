"""Approach 3: a parametric law through all points, with a certificate of the optimum.

Source: Hoffmann et al. 2022 (arXiv 2203.15556) section 3.3 and Besiroglu et al. 2024 (arXiv
2404.10102), who show what goes wrong: a mean in place of the sum lets a solver stop early, and one
start in twelve finds the optimum. Hence many starts, a second-order polish, and a certificate.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.errors import AnalysisError
from analysis.fits.parametric.laws import Floats, Law
from analysis.fits.parametric.solver import Polished, Problem, condition, polish, score
from analysis.formatting import plural

GRID_STARTS = 4500  # points of Hoffmann's grid (`analysis.fits.parametric.laws`)
POLISHED = 64
FEW = 24  # points that separate good starts from hopeless ones
# Two ends are one basin when their objectives agree to this share, or both are rounding.
SAME = 1e-6
ROUNDING = 1e-20


@dataclass(frozen=True)
class Certificate:
    """Why the optimum is believed.

    `gradient_norm`: Euclidean, in the coordinates of theta. `distinct`: how many of the polished
    starts are left once their coefficients are those that suit their exponents. `basins`: distinct
    objectives among the polished starts. `agree`: share of the polished starts that end at the
    optimum. `condition`: of the curvature at the optimum with its columns centred and scaled to
    one; 1: the parameters are well identified, 1e8: they are not.
    """

    objective: float
    gradient_norm: float
    starts: int
    polished: int
    distinct: int
    basins: int
    agree: float
    condition: float


@dataclass(frozen=True)
class LawFit:
    """The optimum of one law on one set of points."""

    problem: Problem
    theta: Floats  # (parameters,)
    certificate: Certificate
    ends: Floats  # one row for each basin, lowest first: warm starts for fits to fewer points

    @cached_property
    def values(self) -> dict[str, float]:
        """The law's parameters, out of their logs, and what follows from them."""
        found = self.problem.law.values(self.theta[None])
        return {name: float(value[0]) for name, value in found.items()}

    @cached_property
    def residuals(self) -> Floats:
        """log measured loss minus log predicted loss, one for each point."""
        return self.problem.log_loss - self.problem.law.log_loss(self.theta[None])[0]


def make_starts(law: Law, number: int, seed: int = 0) -> Floats:
    """`number` starts, (number, parameters): the law's grid where it has that many points, else
    drawn evenly in its box. Parameters without a grid are always drawn."""
    rng = np.random.default_rng(seed)
    if number == math.prod(len(axis) for axis in law.start_grid):
        grid = np.meshgrid(*law.start_grid, indexing="ij")
        starts = np.stack([axis.ravel() for axis in grid], axis=1)
    else:
        low, high = ([axis[end] for axis in law.start_grid] for end in (0, -1))
        starts = rng.uniform(low, high, size=(number, len(law.start_grid)))
    drawn = [rng.uniform(*ends, size=number) for ends in law.start_ranges]
    return np.column_stack([starts, *drawn]) if drawn else starts


def fit_law(problem: Problem, starts: int = GRID_STARTS) -> LawFit:
    """Score the starts, polish the best 64, and certify the lowest end.

    Raises AnalysisError where there are no more points than parameters, or one loss at all.
    """
    law = problem.law
    _refuse_one_loss(problem)
    refuse_too_few(law, problem.points)
    tried = make_starts(law, starts)
    best = best_starts(problem, tried)
    # Starts of the same exponents have become one: each is polished once and counted as often.
    distinct, which = np.unique(best, axis=0, return_inverse=True)
    ended = polish(problem, distinct).each(which)
    order = np.argsort(ended.objective, kind="stable")
    lowest = ended.objective[order[0]]
    same = np.abs(ended.objective - lowest) <= _apart(lowest)
    # Of the ends that agree, the one with the smallest gradient: equal to the last digits.
    winner = np.flatnonzero(same)[np.argmin(ended.gradient[same])]
    basins = _basins(ended, order)
    certificate = Certificate(
        objective=float(ended.objective[winner]),
        gradient_norm=float(ended.gradient[winner]),
        starts=len(tried),
        polished=len(best),
        distinct=len(distinct),
        basins=len(basins),
        agree=float(same.mean()),
        condition=condition(problem, ended.theta[winner]),
    )
    ends = np.concatenate([ended.theta[[winner]], ended.theta[basins[1:]]])
    return LawFit(problem, ended.theta[winner], certificate, ends)


def best_starts(problem: Problem, tried: Floats) -> Floats:
    """The starts to polish. With many starts and points, some 24 points across the losses choose
    the tenth of the starts that all points score."""
    order = np.argsort(problem.log_loss, kind="stable")
    some = np.zeros(problem.points, bool)
    some[order[:: max(1, problem.points // FEW)]] = True
    kept = max(len(tried) // 10, 4 * POLISHED)
    if not some.all() and len(tried) > kept:
        scores = score(problem.at(some), tried)
        tried = tried[np.argsort(scores, kind="stable")[:kept]]
    scores = score(problem, tried)
    best = np.argsort(scores, kind="stable")[:POLISHED]
    # From coefficients that suit the exponents, all ends are reached in a third of the steps.
    power = 0.0 if problem.raw else 1.0
    near = problem.law.projected(tried[best], np.exp(problem.log_loss), power)
    lower = score(problem, near) < scores[best]
    return np.where(lower[:, None], near, tried[best])


def refuse_too_few(law: Law, points: int) -> None:
    """Raise AnalysisError unless there are more points than parameters."""
    if points <= len(law.parameters):
        raise AnalysisError(
            f"The {law.name} law has {len(law.parameters)} parameters and there "
            f"{'is' if points == 1 else 'are'} only {plural(points, 'point')}: "
            "a law with as many parameters as points says nothing; add runs."
        )


def _refuse_one_loss(problem: Problem) -> None:
    """Raise AnalysisError where nothing depends on size or tokens."""
    losses = problem.log_loss
    if problem.points > 1 and (losses == losses[0]).all():
        raise AnalysisError(
            f"All {problem.points} points have one loss, {np.exp(losses[0]):g}: no law of size "
            "and tokens can be read from them; look at where the losses come from."
        )


def _basins(ended: Polished, order: np.ndarray) -> list[int]:
    """One end for each distinct objective, lowest first."""
    kept: list[int] = []
    for end in order:
        value = ended.objective[end]
        above = value - ended.objective[kept[-1]] if kept else np.inf
        if np.isfinite(value) and (not kept or above > _apart(ended.objective[kept[-1]])):
            kept.append(int(end))
    return kept


def _apart(objective: float) -> float:
    """How much higher another basin lies at least."""
    return float(SAME * objective + ROUNDING)
