"""Approach 2: a parabola per budget, then a power law through the minima.

Source: Hoffmann et al. 2022 (arXiv 2203.15556) section 3.2; Porian et al. 2024 (arXiv 2406.19146)
for fitting near the minimum only. At each budget C the loss is fitted as

    L(N) = c0 + c1 u + c2 u^2,   u = (log N - centre) / half width,   by least squares,

whose vertex, corrected for the parabola's bias where approach 3 knows it (`analysis.fits.debias`),
is the compute-optimal size N_opt(C). Then N_opt = k C^a and D_opt = k' C^b by ordinary least
squares in log-log. A minimum that the points do not enclose is named and kept out of the law.

Units: budgets in FLOPs (under the convention of the points), loss in nats per token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cautions import Caution, Code
from analysis.fits import bootstrap, debias, lack, samples
from analysis.fits import noise as noise_of
from analysis.fits.debias import Correction
from analysis.fits.minimum import Minimum, Status, fit_minimum, line
from analysis.fits.noise import Noise, Residuals
from analysis.fits.parabola import Floats
from analysis.fits.samples import Samples
from analysis.fits.slopes import SlopeNoise, slope_noise
from analysis.formatting import compute, listing, plural
from analysis.parallel import spread
from analysis.points.table import curve_of

LOST = 0.05  # share of resamples without a minimum from which an interval is weak
MOST_LEFT_OUT = 10  # at most one run in so many
Interval = tuple[float, float] | None
FEW_SPARE = 5  # Student's t is 1.3 times the normal's or more below it


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient * C^exponent; all None where it could not be fitted."""

    exponent: float | None = None
    coefficient: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ModelFrontier:
    """What approach 2 says of one model: N_opt ~ C^a (`params_law`), D_opt ~ C^b (`tokens_law`).

    `uncorrected_*` are the same laws through the parabolas' own vertices; `note` says whether and
    how these are corrected. `loss_errors` (by budget) are standard errors of the minima's losses.
    """

    model: str
    minima: tuple[Minimum, ...]
    params_law: PowerLaw
    tokens_law: PowerLaw
    uncorrected_params_law: PowerLaw
    uncorrected_tokens_law: PowerLaw
    warnings: tuple[Caution, ...]
    correction: Correction = field(repr=False)
    note: Caution
    drawn: Samples = field(repr=False)
    loss_errors: dict[float, float]

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
    noise: Noise


def fit_isoflop(
    table: pd.DataFrame, *, window: int | None = None, resamples: int = 1000, seed: int = 0
) -> IsoflopResult:
    """Fit every model of a table of points (see `analysis.points.table`).

    `window` K keeps the K nearest sizes on either side of the lowest; None keeps all of up to seven
    sizes at a budget, and of more those within a factor of 2 of the lowest. `resamples` 0 gives no
    intervals. A run far from its curve is left out (`analysis.fits.lack`).
    """
    table = table.reset_index(drop=True)
    trunk = noise_of.trunks(table)
    used = table
    left_out: list[Caution] = []
    for _ in range(1 + len(table) // MOST_LEFT_OUT):
        curves = {str(name): rows for name, rows in used.groupby(curve_of(used), sort=True)}
        minima = {
            name: [fit_minimum(points, window=window) for _, points in rows.groupby("budget")]
            for name, rows in curves.items()
        }
        uncorrected = dict.fromkeys(minima, debias.refused(""))
        parts = _residuals(minima, uncorrected, trunk)
        far = lack.outlier(parts)
        if far is None or len(left_out) == len(table) // MOST_LEFT_OUT:
            break
        left_out.append(lack.left_out(table, far))
        used = used[~used.index.isin(far.rows)]
    raw = noise_of.combine(parts)
    names = list(curves)
    correct = spread(lambda name: debias.correct(curves[name], minima[name], raw, trunk), names)
    corrections = dict(zip(names, correct, strict=True))
    parts = _residuals(minima, corrections, trunk)
    least = noise_of.least_share(table)
    noise = noise_of.combine(parts, least)
    shared = _Shared(slope_noise(parts) if least else None, trunk)
    said = [*left_out, *(lack.undertuned(table, found) for found in lack.one_sided(parts))]
    models = {
        name: _frontier(
            name,
            found,
            corrections[name],
            noise,
            shared,
            resamples,
            seed,
            [caution for caution in said if caution.model == name],
        )
        for name, found in minima.items()
    }
    return IsoflopResult(models, len(table), window, resamples, seed, noise)


@dataclass(frozen=True)
class _Shared:
    """The noise of slopes where trunks are named, else None, and the trunk of each row."""

    noise: SlopeNoise | None
    trunk: NDArray[np.intp]

    def narrowed(
        self,
        law: PowerLaw,
        interval: Interval,
        interior: list[Minimum],
        correction: Correction,
        noise: Noise,
        of: str,
    ) -> Interval:
        """The interval of an exponent, drawn for independent noise, as wide as trunks make it."""
        if self.noise is None or interval is None or law.exponent is None:
            return interval
        x = np.log([m.budget for m in interior])
        weights = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
        if of == "tokens":
            weights = weights * np.array([m.tokens_line for m in interior])[:, 1]
        follows, rows = samples.slope_follows(interior, correction, weights)
        found = self.noise.error(follows, self.trunk[rows], noise.relative**2)
        if found is None:
            return interval
        error, spare = found
        drawn = bootstrap.student_quantile(noise.degrees_of_freedom) * noise.relative
        factor = (
            bootstrap.student_quantile(spare) * error / (drawn * float(np.linalg.norm(follows)))
        )
        low, high = (law.exponent + factor * (end - law.exponent) for end in interval)
        return low, high


def _residuals(
    minima: dict[str, list[Minimum]],
    corrections: dict[str, Correction],
    trunk: NDArray[np.intp],
) -> list[Residuals]:
    return [
        part
        for name, found in minima.items()
        for part in debias.residuals(found, corrections[name], trunk)
    ]


def _frontier(
    model: str,
    found: list[Minimum],
    correction: Correction,
    noise: Noise,
    shared: _Shared,
    resamples: int,
    seed: int,
    said: list[Caution],
) -> ModelFrontier:
    """The laws through the interior minima of one model, with intervals."""
    drawn = samples.draw(model, found, correction, noise, resamples, seed)
    minima = tuple(
        _with_interval(
            lack.refuse_deep(samples.corrected(m, correction)), drawn.log_params.get(m.budget)
        )
        for m in found
    )
    errors = {m.budget: samples.loss_error(m, correction, noise) for m in minima}
    blank = ModelFrontier(
        model,
        minima,
        PowerLaw(),
        PowerLaw(),
        *_laws(found),
        (),
        correction,
        _note(model, minima, correction),
        drawn,
        {budget: error for budget, error in errors.items() if error is not None},
    )
    refused = [m for m in minima if m.status is not Status.INTERIOR]
    warnings = [
        Caution(
            Code.NO_MINIMUM,
            f"Budget {compute(m.budget)} has no minimum ({m.status}): {m.reason}.",
            model,
        )
        for m in refused
    ]
    said = [*said, *lack.disorder(model, minima, blank.loss_errors)]
    interior = [m for m in minima if m.status is Status.INTERIOR]
    if len(interior) < 2:
        counted = f"{len(interior)} of {plural(len(minima), 'budget')}"
        reason = f"{counted} with an interior minimum, and a law needs two."
        warnings.append(Caution(Code.NO_EXPONENT, f"No exponent: {reason}", model, reason))
        return replace(blank, warnings=(*said, *warnings))
    if len(interior) == 2:
        warnings.append(
            Caution(
                Code.TWO_BUDGETS,
                "The exponents rest on two budgets: a line through two points always fits.",
                model,
            )
        )
    intervals, weak = _intervals(model, interior, drawn, noise, resamples)
    laws = [
        replace(law, interval=shared.narrowed(law, interval, interior, correction, noise, of))
        for law, interval, of in zip(_laws(minima), intervals, ("params", "tokens"), strict=True)
    ]
    return replace(
        blank,
        params_law=laws[0],
        tokens_law=laws[1],
        warnings=(*warnings, *weak, *said),
    )


def _laws(minima: Sequence[Minimum]) -> tuple[PowerLaw, PowerLaw]:
    """N_opt and D_opt against compute through the interior minima; empty with fewer than two."""
    interior = [m for m in minima if m.status is Status.INTERIOR]
    if len(interior) < 2:
        return PowerLaw(), PowerLaw()
    budgets = np.array([m.budget for m in interior])
    sizes = np.array([m.params for m in interior], float)
    tokens = np.array([m.tokens for m in interior], float)
    return fit_power_law(budgets, sizes), fit_power_law(budgets, tokens)


def _note(model: str, minima: Sequence[Minimum], correction: Correction) -> Caution:
    """What was taken off the parabolas' minima, or why nothing was."""
    shifts = [s for budget, s in correction.shifts.items() if budget in _budgets(minima)]
    if not shifts:
        reason = correction.reason or "no corrected minimum is enclosed"
        return Caution(
            Code.NOT_CORRECTED,
            f"Not corrected for the bias of a parabola: {reason}.",
            model,
            reason,
        )
    params = [float(np.expm1(-s.log_params)) for s in shifts]
    losses = [-s.loss for s in shifts]
    return Caution(
        Code.BIAS_CORRECTED,
        f"Corrected for the bias of a parabola, by approach 3 at the same sizes: N_opt by "
        f"{min(params):+.1%} to {max(params):+.1%}, best loss by {min(losses):+.4f} to "
        f"{max(losses):+.4f}.",
        model,
    )


def _budgets(minima: Sequence[Minimum]) -> set[float]:
    return {m.budget for m in minima if m.status is Status.INTERIOR}


def fit_power_law(budgets: Floats, values: Floats) -> PowerLaw:
    """values = coefficient * budgets^exponent, by ordinary least squares in log-log."""
    intercept, slope = line(np.log(budgets), np.log(values))
    return PowerLaw(slope, float(np.exp(intercept)))


def _with_interval(minimum: Minimum, vertices: Floats | None) -> Minimum:
    """An interval of N_opt only where nearly all resamples keep the minimum enclosed."""
    if minimum.params is None or vertices is None or np.isnan(vertices).mean() > LOST:
        return minimum
    ends = bootstrap.percentile_interval(vertices)
    assert ends is not None
    return replace(minimum, params_interval=(float(np.exp(ends[0])), float(np.exp(ends[1]))))


def _intervals(
    model: str,
    interior: list[Minimum],
    drawn: Samples,
    noise: Noise,
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
                "no budget of the study has a residual left to estimate the noise; a fourth "
                "size or a second seed at one of them gives one.",
                model,
            )
        ]
    warnings = []
    spare = round(noise.degrees_of_freedom)
    if noise.degrees_of_freedom < FEW_SPARE:
        warnings.append(
            Caution(
                Code.WEAK_INTERVAL,
                f"Weak interval: the noise rests on {plural(spare, 'point')} to spare in the "
                "whole study, so intervals are wide; more sizes, seeds or budgets sharpen them.",
                model,
            )
        )
    log_budgets = np.log([m.budget for m in interior])
    lines = np.array([m.tokens_line for m in interior])
    vertices = np.stack([drawn.log_params[m.budget] for m in interior], axis=1)
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
