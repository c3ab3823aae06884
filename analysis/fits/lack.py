"""Lack of fit: what parabolas or their minima say against the points that they stand on.

Four signs, each a code: a fitted minimum far below every loss that was measured (refused), one run
far from its parabola (left out), a size whose runs all lie on one side of theirs, above as when it
is undertuned (named), and best losses or sizes that do not go with compute (named). Distances are
judged by a t test of a shift of those runs against the noise of the others, Bonferroni over all
runs or sizes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cautions import Caution, Code
from analysis.fits.minimum import Minimum, Status
from analysis.fits.noise import Residuals
from analysis.formatting import compute, count
from analysis.points.table import curve_of

DEEP = 0.05  # of the lowest measured loss: a minimum as far below it was never seen
OUTLYING = 1e-3  # chance to leave out any run of a study whose noise is normal
ONE_SIDED = 1e-2  # chance to name any size
SURE = 2.0  # standard errors by which a best loss rises before it is named
ROUNDING = 1e-6  # of the loss


@dataclass(frozen=True)
class Shifted:
    """Some runs' common shift from their parabolas, relative to the loss, and its p value alone."""

    rows: NDArray[np.intp]
    shift: float
    p_value: float


def refuse_deep(minimum: Minimum) -> Minimum:
    """The minimum, refused where it lies more than 5 % below the lowest measured loss."""
    if minimum.loss is None or minimum.loss > (1 - DEEP) * minimum.lowest_loss:
        return minimum
    below = 1 - minimum.loss / minimum.lowest_loss
    reason = (
        f"the fitted minimum, {minimum.loss:.4f}, lies {below:.0%} below the lowest "
        f"measured loss, {minimum.lowest_loss:.4f}: the parabola does not fit; "
        "fit a smaller window or train sizes nearer to the minimum"
    )
    lost = replace(minimum, params=None, tokens=None, loss=None, uncorrected=None)
    return replace(lost, status=Status.MISFIT, reason=reason)


def outlier(parts: Sequence[Residuals]) -> Shifted | None:
    """The run farthest from its parabola, if it is farther than chance allows."""
    sets = [(part, np.array([place])) for part in parts for place in range(len(part.values))]
    found = _tested(parts, sets)
    worst = min(found, key=lambda shifted: shifted.p_value, default=None)
    return worst if worst is not None and worst.p_value * len(found) < OUTLYING else None


def one_sided(parts: Sequence[Residuals]) -> list[Shifted]:
    """Trunks whose runs lie on one side of their parabolas at three budgets or more."""
    sets = []
    for part in parts:
        for trunk in np.unique(part.trunk):
            places = np.flatnonzero(part.trunk == trunk)
            if len(places) >= 3 and abs(np.sign(part.values[places]).sum()) == len(places):
                sets.append((part, places))
    number = sum(len(np.unique(part.trunk)) for part in parts)
    return [found for found in _tested(parts, sets) if found.p_value * number < ONE_SIDED]


def _tested(
    parts: Sequence[Residuals], sets: Sequence[tuple[Residuals, NDArray[np.intp]]]
) -> list[Shifted]:
    """The shift of each set of residuals by least squares, against the noise of all others."""
    from scipy.special import stdtr

    squares = sum(float(part.values @ part.values) for part in parts)
    spare = sum(part.moments.trace_a for part in parts)
    found = []
    for part, places in sets:
        follows = part.maker.added(places)
        weight = float(follows @ follows)
        total = float(part.values[places].sum())
        if weight < 1e-6 or spare <= 1.5:
            continue
        shift = total / weight
        others = max(squares - total * shift, 0.0) / (spare - 1)
        ratio = abs(total) / np.sqrt(weight * others) if others > 0 else np.inf
        p_value = 2 * float(stdtr(spare - 1, -ratio)) if abs(shift) > ROUNDING else 1.0
        found.append(Shifted(part.rows[places], shift, p_value))
    return found


def left_out(table: pd.DataFrame, found: Shifted) -> Caution:
    """What is said of an outlier."""
    row = table.loc[found.rows[0]]
    model = str(curve_of(table).loc[found.rows[0]])
    return Caution(
        Code.OUTLIERS,
        f"Left out: {model} with {count(row['params'])} parameters at {compute(row['budget'])}, "
        f"loss {row['loss']:.4f}, {found.shift:+.1%} from the curve of the others "
        f"(p {found.p_value:.1g}).",
        model,
    )


def undertuned(table: pd.DataFrame, found: Shifted) -> Caution:
    """What is said of a size on one side of its parabolas."""
    rows = table.loc[found.rows]
    model = str(curve_of(table).loc[found.rows[0]])
    side = "above" if found.shift > 0 else "below"
    return Caution(
        Code.ONE_SIDED_SIZE,
        f"All {len(rows)} runs of {count(rows['params'].iloc[0])} parameters lie {side} their "
        f"curves, by {found.shift:+.1%} (p {found.p_value:.1g}): "
        + ("undertuned, perhaps, or an unlucky trunk." if found.shift > 0 else "a lucky trunk, or "
           "the sizes beside it are undertuned."),
        model,
    )  # fmt: skip


def disorder(model: str, minima: Sequence[Minimum], errors: Mapping[float, float]) -> list[Caution]:
    """Where more compute has a higher best loss or a smaller best size, by more than the noise:
    `errors` are standard errors of the losses by budget, sizes are judged by their intervals."""
    known = [m for m in minima if m.status is Status.INTERIOR and m.loss and m.params]
    said = []
    for low, high in pairwise(known):
        at = f"from {compute(low.budget)} to {compute(high.budget)}"
        losses = low.loss or 0.0, high.loss or 0.0
        error = float(np.hypot(errors.get(low.budget, 0.0), errors.get(high.budget, 0.0)))
        if losses[1] - losses[0] > max(SURE * error, ROUNDING * losses[0]):
            text = f"The best loss does not fall {at}: {losses[0]:.4f} and {losses[1]:.4f}."
            said.append(Caution(Code.BEST_LOSS_RISES, text, model))
        params = low.params or 0.0, high.params or 0.0
        apart = params[1] < params[0] * (1 - ROUNDING)
        if low.params_interval and high.params_interval:
            apart = high.params_interval[1] < low.params_interval[0]
        if apart:
            text = f"The best size does not grow {at}: {count(params[0])} and {count(params[1])}."
            said.append(Caution(Code.BEST_SIZE_FALLS, text, model))
    return said
