"""Architectures at equal compute: gap in loss, and compute that the baseline needs to keep up.

At each budget every model has a best loss: the minimum of its isoFLOP parabola where the points
enclose one, otherwise the lowest loss that was measured, which then is an upper bound. The
baseline's best losses, joined by straight lines in (log C, log L), say at which compute it reaches
the other's best loss; that compute over C is the effective compute multiplier k: "mor at C equals
vanilla at k C". Outside of the baseline's budgets the last line is extrapolated, and k is marked
extrapolated. Intervals rest on the noise pooled over budgets and models (see
`analysis.fits.bootstrap`). With several budgets and models one of many intervals misses zero by
chance: `decided` is whether the gap still excludes zero with all comparisons together (Holm).

Units: budgets in FLOPs (under the convention of the points), loss in nats per token.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.fits import bootstrap
from analysis.fits.isoflop import IsoflopResult, ModelFrontier
from analysis.fits.minimum import Minimum, Status
from analysis.fits.parabola import Floats
from analysis.fits.resample import percentiles
from analysis.formatting import compute, listing

Interval = tuple[float, float] | None
FLAT = 1e-9
LACK_OF_FIT = (Code.OUTLIERS, Code.ONE_SIDED_SIZE, Code.BEST_LOSS_RISES, Code.BEST_SIZE_FALLS)
LEVEL = 0.05  # chance of one false ahead or behind among all comparisons together


@dataclass(frozen=True)
class Comparison:
    """One model against the baseline at one budget."""

    model: str
    budget: float
    loss: float
    loss_is_bound: bool  # lowest measured, not an enclosed minimum
    baseline_loss: float
    baseline_is_bound: bool
    gap: float  # loss - baseline_loss, nats per token: below zero the model is better
    measured_gap: float  # the same of the lowest measured losses, no parabola in between
    gap_interval: Interval
    p_value: float | None  # of no gap, this comparison alone
    adjusted_p: float | None  # the same with all comparisons together (Holm)
    decided: bool  # adjusted_p below 0.05
    multiplier: float | None
    multiplier_interval: Interval
    extrapolated: bool


class Turning(Protocol):
    """A comparison at something else than equal compute."""

    @property
    def model(self) -> str: ...

    @property
    def budget(self) -> float: ...

    @property
    def turns(self) -> bool: ...


@dataclass(frozen=True)
class Plateau:
    """The sizes whose fitted loss is within one sigma (of the residuals) of the minimum."""

    model: str
    budget: float
    params: float
    sigma: float
    low: float
    high: float
    reaches_beyond: bool  # of the sizes that were tested


@dataclass(frozen=True)
class Compared:
    """Every model against the baseline, and how flat every enclosed minimum is."""

    baseline: str
    comparisons: tuple[Comparison, ...]
    plateaus: tuple[Plateau, ...]
    warnings: tuple[Caution, ...]


def compare(result: IsoflopResult, baseline: str) -> Compared:
    """Compare the models of an isoFLOP fit. Raises AnalysisError where there is no baseline, no
    other model, or no budget in common."""
    if baseline not in result.models:
        raise AnalysisError(
            f"There is no model {baseline!r} among the points ({listing(sorted(result.models))}): "
            f"name one of them, as in --baseline '{sorted(result.models)[0]}'."
        )
    if len(result.models) < 2:
        raise AnalysisError(
            f"All points are of one model ({baseline}): a comparison needs another one."
        )
    base = {m.budget: m for m in result.models[baseline].minima}
    comparisons = [
        _compare(name, minimum, baseline, base, result)
        for name, frontier in result.models.items()
        for minimum in frontier.minima
        if name != baseline and minimum.budget in base
    ]
    if not comparisons:
        raise AnalysisError(
            f"No budget is common to {baseline} and another model: loss at equal compute cannot "
            "be compared; run them at the same budgets."
        )
    comparisons = _together(comparisons)
    plateaus = [
        _plateau(name, minimum)
        for name, frontier in result.models.items()
        for minimum in frontier.interior
        if minimum.parabola is not None and minimum.parabola.degrees_of_freedom > 0
    ]
    warnings = _warnings(result, baseline, comparisons)
    return Compared(baseline, tuple(comparisons), tuple(plateaus), tuple(warnings))


def best_loss(minimum: Minimum) -> float:
    """The minimum that the points enclose, else the lowest measured loss (nats per token)."""
    return minimum.lowest_loss if minimum.loss is None else minimum.loss


def resampled_losses(frontier: ModelFrontier, minimum: Minimum) -> Floats | None:
    """Resampled best losses; None where the study has no spare point or no enclosed minimum."""
    if minimum.status is not Status.INTERIOR:
        return None
    return frontier.drawn.loss.get(minimum.budget)


def _gap_error(own: ModelFrontier, other: ModelFrontier, budget: float) -> float | None:
    """Standard error of the gap between two enclosed minima, nats per token."""
    errors = [frontier.loss_errors.get(budget) for frontier in (own, other)]
    known = [error for error in errors if error is not None]
    return float(np.linalg.norm(known)) if len(known) == 2 else None


def _together(comparisons: list[Comparison]) -> list[Comparison]:
    """What is still decided when all comparisons of the study are looked at together."""
    known = [c.p_value for c in comparisons if c.p_value is not None]
    adjusted = iter(bootstrap.holm(known))
    found = []
    for row in comparisons:
        p = None if row.p_value is None else next(adjusted)
        found.append(replace(row, adjusted_p=p, decided=p is not None and p < LEVEL))
    return found


def _compare(
    model: str,
    minimum: Minimum,
    baseline: str,
    base: dict[float, Minimum],
    result: IsoflopResult,
) -> Comparison:
    own, other_frontier = result.models[model], result.models[baseline]
    budget, other = minimum.budget, base[minimum.budget]
    loss, base_loss = best_loss(minimum), best_loss(other)
    budgets = np.array(sorted(base))
    curve = np.array([[best_loss(base[b]) for b in budgets]])
    reached = compute_reaching(budgets, curve, np.array([loss]))[0]
    mine = resampled_losses(own, minimum)
    curves = [resampled_losses(other_frontier, base[b]) for b in budgets]
    gap = loss - base_loss
    error = _gap_error(own, other_frontier, budget) if result.resamples else None
    gap_interval = p_value = multiplier_interval = None
    if error is not None and error > 0:
        half = bootstrap.student_quantile(result.noise.degrees_of_freedom) * error
        gap_interval = (gap - half, gap + half)
        p_value = bootstrap.p_value(gap / error, result.noise)
    if mine is not None and all(samples is not None for samples in curves):
        stacked = np.stack([samples for samples in curves if samples is not None], axis=1)
        multiplier_interval = percentiles(compute_reaching(budgets, stacked, mine) / budget)
    return Comparison(
        model,
        budget,
        loss,
        minimum.status is not Status.INTERIOR,
        base_loss,
        other.status is not Status.INTERIOR,
        gap,
        minimum.lowest_loss - other.lowest_loss,
        gap_interval,
        p_value,
        None,
        False,
        float(reached / budget) if np.isfinite(reached) else None,
        multiplier_interval,
        bool(np.isfinite(reached) and not budgets[0] <= reached <= budgets[-1]),
    )


def compute_reaching(budgets: Floats, curves: Floats, losses: Floats) -> Floats:
    """The compute at which each curve (sets, budgets) reaches its loss; NaN where it is flat."""
    x, y = np.log(budgets), np.log(curves)
    wanted = np.log(losses)[:, None]
    if len(budgets) < 2:
        return np.full(len(losses), np.nan)
    # The segment that holds the loss: curves fall, so count the inner joints that lie above it.
    segment = np.sum(y[:, 1:-1] > wanted, axis=1)
    rows = np.arange(len(y))
    left, right = y[rows, segment], y[rows, segment + 1]
    slope = (right - left) / (x[segment + 1] - x[segment])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = np.exp(x[segment] + (wanted[:, 0] - left) / slope)
    return np.where(slope < -FLAT, found, np.nan)


def _plateau(model: str, minimum: Minimum) -> Plateau:
    parabola = minimum.parabola
    assert parabola is not None
    assert minimum.params is not None
    sigma = float(np.sqrt(np.sum(parabola.residuals**2) / parabola.degrees_of_freedom))
    reach = parabola.half_width * np.sqrt(sigma / parabola.coefficients[2])
    vertex = float(np.log(minimum.params))
    low, high = vertex - reach, vertex + reach
    beyond = low < parabola.log_params[0] or high > parabola.log_params[-1]
    ends = float(np.exp(low)), float(np.exp(high))
    return Plateau(model, minimum.budget, minimum.params, sigma, *ends, bool(beyond))


def _correction(result: IsoflopResult) -> Caution:
    """Whose best losses are corrected for the bias of a parabola, and whose are not."""
    notes = {name: frontier.note for name, frontier in result.models.items()}
    refused = {name: note for name, note in notes.items() if note.code is Code.NOT_CORRECTED}
    done = [name for name in notes if name not in refused]
    told = [f"Corrected for the bias of a parabola: {listing(done)}."] if done else []
    for reason in dict.fromkeys(note.reason for note in refused.values()):
        same = [name for name, note in refused.items() if note.reason == reason]
        told.append(f"Not corrected for the bias of a parabola: {listing(same, 8)} ({reason}).")
    if done and refused:
        told.append("A gap between a corrected and an uncorrected model holds the latter's bias.")
    return Caution(Code.NOT_CORRECTED if refused else Code.BIAS_CORRECTED, " ".join(told))


def _without_baseline(result: IsoflopResult, baseline: str) -> Caution | None:
    """Budgets that have points of other models and none of the baseline."""
    base = {minimum.budget for minimum in result.models[baseline].minima}
    there: dict[float, list[str]] = {}
    for name, frontier in result.models.items():
        for budget in {minimum.budget for minimum in frontier.minima} - base:
            there.setdefault(budget, []).append(name)
    if not there:
        return None
    shown = [f"{listing(models, 8)} at {compute(at)}" for at, models in sorted(there.items())]
    return Caution(
        Code.NOT_COMPARED,
        f"Not compared, as {baseline} has no points at these budgets: {'; '.join(shown)}. Train "
        f"{baseline} there, or type another model after compare --baseline.",
    )


def _warnings(result: IsoflopResult, baseline: str, comparisons: list[Comparison]) -> list[Caution]:
    bounds = [
        f"{name} at {compute(m.budget)}"
        for name, frontier in result.models.items()
        for m in frontier.minima
        if m.status is not Status.INTERIOR
    ]
    said = [_correction(result)]
    said += [w for f in result.models.values() for w in f.warnings if w.code in LACK_OF_FIT]
    if bounds:
        said.append(
            Caution(
                Code.UPPER_BOUND,
                "No enclosed minimum, so the lowest measured loss stands in (an upper bound of the "
                f"best, without an interval): {listing(bounds)}.",
            )
        )
    lacking = _without_baseline(result, baseline)
    if lacking:
        said.append(lacking)
    flipped = [c for c in comparisons if c.gap * c.measured_gap < 0]
    if flipped:
        shown = [f"{c.model} at {compute(c.budget)} ({c.measured_gap:+.4f})" for c in flipped]
        said.append(
            Caution(
                Code.LEADER_UNCLEAR,
                "Fitted and measured disagree on who leads; the gap of the lowest measured "
                "losses has "
                f"the other sign: {listing(shown)}.",
            )
        )
    far = [f"{c.model} at {compute(c.budget)}" for c in comparisons if c.extrapolated]
    if far:
        said.append(
            Caution(
                Code.EXTRAPOLATED,
                f"Multipliers that lie outside of the budgets of {baseline} are extrapolated: "
                f"{listing(far)}.",
            )
        )
    weak = sorted(
        name
        for name, frontier in result.models.items()
        if any(warning.code is Code.WEAK_INTERVAL for warning in frontier.warnings)
    )
    if weak:
        said.append(
            Caution(
                Code.NARROW_INTERVALS,
                f"The intervals of {listing(weak)} are weak: few residuals estimate the noise, "
                "or resamples lose a minimum.",
            )
        )
    return said


def turns(told: Comparison, gap: float, interval: Interval) -> bool:
    """Whether another model leads by this gap (nats per token) than at equal compute, one of the
    two verdicts being more than noise."""
    if interval is None or told.gap_interval is None:
        return gap * told.gap < 0
    return gap * told.gap < 0 and (told.decided or not interval[0] <= 0 <= interval[1])


def turned(rows: Iterable[Turning], at: str) -> str:
    """A headline for the rows that turn; empty: none does."""
    found = [f"{row.model} at {compute(row.budget)}" for row in rows if row.turns]
    if not found:
        return ""
    return f"At equal {at} the order is another than at equal compute: {listing(found, 8)}."
