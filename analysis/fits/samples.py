"""Resampled minima of one model, with its correction (`analysis.fits.debias`) taken along.

Every point has one error in a draw: it moves its parabola and, through approach 3, the shifts of
all budgets. To first order both are linear in the errors, which is how the standard error of a best
loss and the noise behind the residuals follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.fits import bootstrap
from analysis.fits.debias import Correction, vertex_slope
from analysis.fits.minimum import Minimum, Status, Vertex
from analysis.fits.noise import Noise
from analysis.fits.parabola import Floats
from analysis.formatting import count


@dataclass(frozen=True)
class Samples:
    """By budget: log(params) of the minimum, NaN where a resample has none among the sizes, and
    the best loss, both (resamples,). `floor` is E of the law that corrects them, (resamples,)."""

    log_params: dict[float, Floats]
    loss: dict[float, Floats]
    floor: Floats | None = None


NONE = Samples({}, {})


def draw(
    model: str,
    minima: Sequence[Minimum],
    correction: Correction,
    noise: Noise,
    resamples: int,
    seed: int,
) -> Samples:
    """Samples of each enclosed minimum; none without noise or resamples."""
    enclosed = [(m, m.parabola) for m in minima if m.params is not None and m.parabola]
    if resamples == 0 or not noise.known or not enclosed:
        return NONE
    scale = bootstrap.scales(noise, resamples, seed)
    rng = bootstrap.generator(model, seed)
    drawn = {m.budget: bootstrap.errors(len(p.loss), scale, rng) for m, p in enclosed}
    fits = {m.budget: bootstrap.refits(p, drawn[m.budget]) for m, p in enclosed}
    log_params = {m.budget: bootstrap.vertices(p, fits[m.budget]) for m, p in enclosed}
    loss = {m.budget: bootstrap.lowest(fits[m.budget]) for m, _ in enclosed}
    floor = None
    if correction.shifts:
        errors = bootstrap.errors(len(correction.index), scale, rng)  # of points under no parabola
        for minimum, _ in enclosed:
            errors[:, correction.places(minimum)] = drawn[minimum.budget]
        for budget, shift in correction.shifts.items():
            log_params[budget] -= shift.log_params + errors @ shift.log_params_slope
            loss[budget] -= shift.loss + errors @ shift.loss_slope
        floor = correction.floors(errors)
    return Samples(log_params, loss, floor)


def corrected(minimum: Minimum, correction: Correction) -> Minimum:
    """The minimum with its shift taken off; an edge where that leads beyond the sizes tested."""
    shift = correction.shifts.get(minimum.budget)
    parabola, line = minimum.parabola, minimum.tokens_line
    if shift is None or parabola is None or line is None:
        return minimum
    assert minimum.params is not None
    assert minimum.tokens is not None
    assert minimum.loss is not None
    log_params = parabola.vertex - shift.log_params
    low, high = parabola.log_params[[0, -1]]
    if not low < log_params < high:
        reason = (
            f"corrected for the parabola's bias the minimum, {count(float(np.exp(log_params)))}, "
            f"lies {'below' if log_params <= low else 'above'} the sizes it is fitted to"
        )
        lost = replace(minimum, params=None, tokens=None, loss=None)
        return replace(lost, status=Status.EDGE, reason=reason)
    return replace(
        minimum,
        params=float(np.exp(log_params)),
        tokens=float(np.exp(line[0] + line[1] * log_params)),
        loss=minimum.loss - shift.loss,
        uncorrected=Vertex(minimum.params, minimum.tokens, minimum.loss),
    )


def loss_error(minimum: Minimum, correction: Correction, noise: Noise) -> float | None:
    """Standard error of an enclosed minimum's loss, nats per token."""
    if minimum.params is None or minimum.parabola is None or not noise.known:
        return None
    slope = bootstrap.loss_slope(minimum.parabola)
    shift = correction.shifts.get(minimum.budget)
    if shift is not None:
        own, slope = slope, -shift.loss_slope
        slope[correction.places(minimum)] += own
    return noise.relative * float(np.linalg.norm(slope))


def slope_follows(
    minima: Sequence[Minimum], correction: Correction, weights: Floats
) -> tuple[Floats, NDArray[np.intp]]:
    """How a weighted sum of the minima's log(params) follows relative errors: of the points (the
    table's rows), both (points,)."""
    if correction.shifts:
        follows = np.zeros(len(correction.index))
        for minimum, weight in zip(minima, weights, strict=True):
            follows[correction.places(minimum)] += weight * vertex_slope(minimum)
            follows -= weight * correction.shifts[minimum.budget].log_params_slope
        return follows, correction.index
    parts = [weight * vertex_slope(m) for m, weight in zip(minima, weights, strict=True)]
    return np.concatenate(parts), np.concatenate([m.rows for m in minima]).astype(np.intp)
