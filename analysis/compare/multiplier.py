"""The effective compute multiplier estimated in two more ways: from laws, and from paired sizes.

*Laws*: approach 3 for each model. Along log D = p + q log N + r log C, as the points have it, the
best loss is L*(C) = E + K C^-gamma, so the compute at which the baseline reaches L*_model(C) has a
closed form; k is that over C. It does not depend on which sizes were trained, and stands on both
laws being right.

*Pairs*: runs of both models at one size and budget. The gap in log loss of each pair is measured;
the baseline's law only says what a gap is worth in compute at that size,
log L(N, k D) - log L(N, D). k is the least-squares one of a budget's pairs. It asks whether the
model is better at equal size, whatever size is best.

Where L_model(N, D) = L_baseline(N, k D) both ways and that of `equal_compute` have one answer, k.
Intervals hold the noise of the points; docs/coverage.md has how often they hold the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.compare.equal_compute import Compared
from analysis.errors import AnalysisError
from analysis.fits import bootstrap
from analysis.fits.parametric.caution import NOT_IDENTIFIED, vanished
from analysis.fits.parametric.frontier import Plane, frontier, plane_of
from analysis.fits.parametric.laws import Chinchilla, Floats
from analysis.fits.parametric.optimum import LawFit, fit_law
from analysis.fits.parametric.profile import judged
from analysis.fits.parametric.solver import Problem
from analysis.fits.resample import Intervals, group_points, interval_of, intervals, percentiles
from analysis.formatting import compute
from analysis.parallel import spread
from analysis.points.series import ordered
from analysis.points.table import curve_of

Interval = tuple[float, float] | None
STEPS = 20  # of Gauss-Newton for k; three are enough


@dataclass(frozen=True)
class Multiplier:
    """Compute that the baseline needs for a model's loss, over the budget; None with a reason."""

    model: str
    budget: float
    by: str  # laws or pairs
    multiplier: float | None
    interval: Interval = None
    pairs: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Fitted:
    """A model's law, its resamples, and log D = p + q log N + r log C; or why there is none."""

    rows: pd.DataFrame
    reason: str
    fit: LawFit | None = None
    found: Intervals | None = None
    plane: Plane = (0.0, 0.0, 0.0)


def multipliers(
    table: pd.DataFrame, baseline: str, *, resamples: int, seed: int
) -> tuple[Multiplier, ...]:
    """Every other model at every budget that it shares with the baseline, by laws and by pairs.

    `table` needs the columns size and trunk, missing where the points have none.
    """
    curves = curve_of(table)
    names = ordered(list(dict.fromkeys(curves)))
    rows_of = {name: table[curves == name].reset_index(drop=True) for name in names}
    fits = spread(lambda name: _fitted(rows_of[name], name, resamples, seed), names)
    fitted = dict(zip(names, fits, strict=True))
    base = fitted[baseline]
    rows: list[Multiplier] = []
    for name, own in fitted.items():
        if name == baseline:
            continue
        shared = np.intersect1d(own.rows["budget"], base.rows["budget"])
        rows += [_by_laws(name, float(budget), own, base, baseline) for budget in shared]
        rows += _by_pairs(name, shared, own, base, seed)
    return tuple(rows)


def apart(done: Compared, others: Sequence[Multiplier]) -> list[Caution]:
    """Where two of the three ways to k have intervals that do not meet: one of them rests on what
    these points do not have (a common law, minima that are enclosed, pairs of one size)."""
    found = []
    for told in done.comparisons:
        ways = [("minima", told.multiplier, told.multiplier_interval)]
        same = [row for row in others if (row.model, row.budget) == (told.model, told.budget)]
        ways += [(row.by, row.multiplier, row.interval) for row in same]
        known = [(name, k, ends) for name, k, ends in ways if k is not None and ends is not None]
        if any(a[2][0] > b[2][1] for a in known for b in known):
            said = ", ".join(f"{name} {k:.3g} [{a:.3g}, {b:.3g}]" for name, k, (a, b) in known)
            text = f"k of {told.model} at {compute(told.budget)} depends on the way: {said}."
            found.append(Caution(Code.MULTIPLIERS_APART, text, told.model))
    return found


def _fitted(rows: pd.DataFrame, name: str, resamples: int, seed: int) -> Fitted:
    try:
        fit = fit_law(Problem(Chinchilla.of(rows), np.log(rows["loss"].to_numpy(float))))
    except AnalysisError as error:
        return Fitted(rows, f"{name}: {str(error).rstrip('.')}")
    if any(term.exponent for term in vanished(fit)) or min(fit.theta[1], fit.theta[3]) <= 0:
        return Fitted(rows, f"the law of {name} has lost a term")
    seen = judged(fit)
    if seen is not None and not seen.identified:
        return Fitted(rows, f"the law of {name} is {NOT_IDENTIFIED} ({seen.why})")
    if rows["budget"].nunique() < 2:
        return Fitted(rows, f"{name} has one budget")
    # A stream for each model: with one, equal grids would draw equal errors, and gaps no spread.
    own = int(bootstrap.generator(name, seed).integers(2**31))
    found = intervals(fit, group_points(rows, "auto"), resamples, own)
    return Fitted(rows, "", fit, found, plane_of(rows))


def _by_laws(model: str, budget: float, own: Fitted, base: Fitted, baseline: str) -> Multiplier:
    reason = base.reason or own.reason
    if own.fit is None or base.fit is None or own.found is None or base.found is None:
        return Multiplier(model, budget, "laws", None, reason=reason)
    value = _reached(base.fit.theta[None], base.plane, own.fit.theta[None], own.plane, budget)[0]
    if not np.isfinite(value):
        reason = f"by its law {baseline} never reaches that loss"
        return Multiplier(model, budget, "laws", None, reason=reason)
    used = min(base.found.used, own.found.used)
    drawn = _reached(
        base.found.thetas[:used], base.plane, own.found.thetas[:used], own.plane, budget
    )
    ends = interval_of(np.log(drawn), float(np.log(value)), base.found) if used else None
    return Multiplier(model, budget, "laws", float(value), _exp(ends))


def _reached(base: Floats, base_plane: Plane, own: Floats, plane: Plane, budget: float) -> Floats:
    """k for each pair of parameter sets, (sets,); NaN where the baseline's floor is higher."""
    floor, level, gamma = frontier(base, base_plane)
    own_floor, own_level, own_gamma = frontier(own, plane)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        loss = own_floor + np.exp(own_level - own_gamma * np.log(budget))
        reached = (level - np.log(loss - floor)) / gamma
        return np.asarray(np.exp(reached - np.log(budget)))


def _by_pairs(
    model: str, budgets: Floats, own: Fitted, base: Fitted, seed: int
) -> list[Multiplier]:
    pairs = {float(budget): _paired(own.rows, base.rows, budget) for budget in budgets}
    if base.fit is None or base.found is None:
        return [Multiplier(model, b, "pairs", None, reason=base.reason) for b in pairs]
    per_log_k = base.plane[2]  # of log tokens, at one size
    worth = {b: _worth(rows, base.fit.theta[None]) for b, rows in pairs.items() if len(rows)}
    spare = sum(len(pairs[b]) for b in worth) - len(worth)
    squares = sum(float(np.sum(found.left**2)) for found in worth.values())
    rng = bootstrap.generator(model, seed)
    rows = []
    for budget, found in worth.items():
        ends = None
        if spare > 0 and base.found.used:
            error = np.sqrt(squares / spare / np.sum(found.slopes**2))
            drawn = _worth(pairs[budget], base.found.thetas).log_tokens
            drawn = drawn + error * rng.standard_t(spare, size=len(drawn))
            ends = percentiles(np.exp(np.minimum(drawn / per_log_k, 700)))
        k = float(np.exp(found.log_tokens[0] / per_log_k))
        rows.append(Multiplier(model, budget, "pairs", k, ends, len(pairs[budget])))
    none = "no size was trained by both"
    alone = [b for b in pairs if b not in worth]
    return rows + [Multiplier(model, b, "pairs", None, pairs=0, reason=none) for b in alone]


@dataclass(frozen=True)
class Worth:
    """What the gaps of some pairs are worth: log of the factor of tokens (sets,), and of the last
    set what is left of each gap and its slope in that log, (pairs,)."""

    log_tokens: Floats
    left: Floats
    slopes: Floats


def _worth(pairs: pd.DataFrame, theta: Floats) -> Worth:
    """Least squares of log L(N, k D) - log L(N, D) against the gaps, by Gauss-Newton."""
    log_params, log_tokens = np.log(pairs["params"]), np.log(pairs["tokens"])
    size, at = log_params.to_numpy(float), log_tokens.to_numpy(float)
    gaps = pairs["gap"].to_numpy(float)
    here = Chinchilla(size, at).log_loss(theta)
    factor = np.zeros((len(theta), 1))
    left, slopes = gaps - 0 * here, np.ones_like(here)
    for _ in range(STEPS):
        law = Chinchilla(size, at + factor)
        slopes = -theta[:, 3:4] * law.term_shares(theta)[1]
        left = gaps - (law.log_loss(theta) - here)
        with np.errstate(divide="ignore", invalid="ignore"):  # a law without a data term
            step = (slopes * left).sum(axis=1) / (slopes**2).sum(axis=1)
        factor = factor + np.clip(step, -1, 1)[:, None]
    return Worth(factor[:, 0], left[-1], slopes[-1])


def _paired(own: pd.DataFrame, base: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Sizes that both trained at a budget: the baseline's params and tokens, and the gap in log
    loss, means over repeats. Sizes pair by name where all have one, otherwise by parameters."""
    parts = [rows[rows["budget"] == budget] for rows in (own, base)]
    named = all(part["size"].notna().all() for part in parts)
    key = "size" if named else "params"
    means = [
        part.assign(log_loss=np.log(part["loss"].astype(float)), key=part[key])
        .groupby("key")[["log_loss", "params", "tokens"]]
        .mean()
        for part in parts
    ]
    both = means[1].join(means[0]["log_loss"].rename("own"), how="inner")
    return both.assign(gap=both["own"] - both["log_loss"])


def _exp(ends: Interval) -> Interval:
    return None if ends is None else (float(np.exp(ends[0])), float(np.exp(ends[1])))
