"""Does recursion count as parameters? phi free against phi = 0 and phi = 1.

phi = 0: another pass through the block is worth nothing beyond its weights. phi = 1: a pass is
worth as much as weights of its own. Source: the looped law of arXiv 2604.21106. The p value is a
bootstrap's: how far the resampled phi reach across the tested value, twice the smaller tail; with
few groups Student's t of the distance in spreads. Objectives and R2 of the three fits stand beside
it: under Huber's loss a ratio of objectives is not a likelihood ratio, so it is shown, not tested.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.fits.parametric.lawfit import Asked, Report, report
from analysis.fits.parametric.laws import Joint
from analysis.fits.parametric.optimum import LawFit, fit_law
from analysis.fits.resample import Intervals, Method, student_widening

TESTED = (0.0, 1.0)


@dataclass(frozen=True)
class Fixed:
    """The joint law with phi held at a value."""

    phi: float
    objective: float
    r2: float
    p_value: float | None


@dataclass(frozen=True)
class Nested:
    """The free fit and the two held ones."""

    free: Report
    r2: float
    fixed: tuple[Fixed, ...]


def fit_nested(table: pd.DataFrame, asked: Asked) -> Nested:
    """Fit the joint law with phi free, 0 and 1 to a table with n_once, n_rec, r, tokens, loss.

    Raises AnalysisError where no point is looped: phi then has no meaning.
    """
    Joint.refuse(table)
    free = report(Joint.of(table), table, asked)
    fixed = []
    for phi in TESTED:
        problem = replace(free.fit.problem, law=Joint.of(table, phi))
        held = fit_law(problem, asked.starts)
        chance = p_value(free.fit, free.intervals, phi)
        fixed.append(Fixed(phi, held.certificate.objective, r_squared(held), chance))
    return Nested(free, r_squared(free.fit), tuple(fixed))


def r_squared(fit: LawFit) -> float:
    """Share of the variance of the loss (not of its log) that the law explains."""
    measured = np.exp(fit.problem.log_loss)
    predicted = np.exp(fit.problem.law.log_loss(fit.theta[None])[0])
    missed = np.sum((measured - predicted) ** 2)
    return float(1 - missed / np.sum((measured - measured.mean()) ** 2))


def p_value(fit: LawFit, found: Intervals, phi: float) -> float | None:
    """Chance, two-sided, of resamples that reach across `phi`; None without resamples."""
    if found.method is Method.NONE:
        return None
    samples = found.samples["phi"]
    if found.method is not Method.STUDENT:
        below, above = np.sum(samples <= phi) + 1, np.sum(samples >= phi) + 1
        return float(min(1.0, 2 * min(below, above) / (len(samples) + 1)))
    from scipy.special import stdtr, stdtrit

    low, high = np.percentile(samples, [16, 84])
    spare = found.groups.number - 1
    unit = student_widening(found.groups) / stdtrit(spare, 0.975)
    distance = abs(fit.values["phi"] - phi) / max(0.5 * (high - low) * unit, 1e-300)
    return float(2 * stdtr(spare, -distance))


def as_json(done: Nested) -> dict[str, Any]:
    """The held fits beside the free one's R2."""
    return {"r2": done.r2, "nested": [vars(held) for held in done.fixed]}


def as_lines(done: Nested) -> list[str]:
    """The same for a terminal."""
    best = done.free.fit.certificate.objective
    lines = [f"phi free: R2 {done.r2:.5f}, objective {best:.6g}"]
    for held in done.fixed:
        p = "no p value" if held.p_value is None else f"p {held.p_value:.2g}"
        lines.append(
            f"phi = {held.phi:g}:  R2 {held.r2:.5f}, objective {held.objective:.6g} "
            f"({held.objective / best:.3g} times), {p} that phi is {held.phi:g}"
        )
    return lines
