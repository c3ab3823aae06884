"""The law through the optima of one model: `setting = c N^-a D^-b`, weighted least squares in logs.

The form is the simplest that the optima give: a constant from one place, a power of N from several
sizes, of D from several token counts. D is in it only where its power does not follow from that of
N and its interval leaves zero out, as a law with D costs the trunks that budgets share.
Optima that scatter about the law more than their intervals say widen its interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.fits import bootstrap
from analysis.fits.parabola import Floats

if TYPE_CHECKING:
    from analysis.fits.tuning.fit import Optimum

Interval = tuple[float, float]
ALIKE = 0.05  # of a factor: sizes or token counts that differ by less are one
RAY = 0.99  # correlation of log N and log D beyond which they are not separated


@dataclass(frozen=True)
class Law:
    """`value` at N0, D0 (`centre`), and the powers; None for an interval where noise is unknown."""

    setting: str
    centre: tuple[float, float]
    value: float
    a: float
    b: float
    uses: tuple[bool, bool]  # whether N and D are in it
    value_interval: Interval | None
    a_interval: Interval | None
    b_interval: Interval | None
    draws: Floats | None  # (resamples, 3): log value at the centre, a, b
    scatter: float | None  # of the optima about it, in units of their errors; None: no check
    note: str = ""

    @property
    def c(self) -> float:
        """The factor of `c N^-a D^-b`."""
        n, d = self.centre
        return float(np.exp(np.log(self.value) + self.a * np.log(n) + self.b * np.log(d)))

    def at(self, params: float, tokens: float) -> float:
        """The setting at a size and a number of tokens."""
        return float(self.c * params**-self.a * tokens**-self.b)


def fit_law(optima: "Sequence[Optimum]", k: int, setting: str) -> Law:
    """The law of setting `k` through enclosed optima (at least one)."""
    n = np.log([one.cell.params for one in optima])
    d = np.log([one.cell.tokens for one in optima])
    y = np.array([np.log(one.values[k]) for one in optima if one.values is not None])
    centre = float(np.exp(n.mean())), float(np.exp(d.mean()))
    place = np.stack([np.ones_like(n), -(n - n.mean()), -(d - d.mean())], axis=1)
    drawn = _stacked(optima, k)
    errors = (
        None if drawn is None else 0.5 * np.diff(np.percentile(drawn, [16, 84], axis=0), axis=0)[0]
    )
    uses, note = _form(n, d)
    if uses[1]:
        ends = _fit(place, uses, y, drawn, errors).interval(2)
        if ends is None or ends[0] <= 0 <= ends[1] or len(y) <= sum(uses) + uses[0]:
            uses = (uses[0], False)
    done = _fit(place, uses, y, drawn, errors)
    level, a, b = map(float, done.best)
    return Law(
        setting, centre, float(np.exp(level)), a, b, uses,
        _exp(done.interval(0)), done.interval(1) if uses[0] else None,
        done.interval(2) if uses[1] else None, done.draws, done.scatter, note,
    )  # fmt: skip


def _form(n: Floats, d: Floats) -> tuple[tuple[bool, bool], str]:
    several_n, several_d = np.ptp(n) > ALIKE, np.ptp(d) > ALIKE
    if several_n and several_d and len(n) > 2:
        if abs(np.corrcoef(n, d)[0, 1]) < RAY:
            return (True, True), ""
        return (True, False), (
            "sizes and tokens go together (one budget, or one ratio), so a power of N stands for "
            "both; vary the budget to separate them"
        )
    if several_n and several_d:
        return (True, False), "two optima determine one power, taken as one of N"
    return (bool(several_n), bool(several_d and not several_n)), ""


@dataclass(frozen=True)
class _Fitted:
    best: Floats  # (3,)
    draws: Floats | None
    scatter: float | None

    def interval(self, at: int) -> Interval | None:
        if self.draws is None:
            return None
        low, high = np.percentile(self.draws[:, at], [2.5, 97.5])
        return float(low), float(high)


def _fit(
    place: Floats, uses: tuple[bool, bool], y: Floats, drawn: Floats | None, errors: Floats | None
) -> _Fitted:
    columns = [0, *(i for i, used in enumerate(uses, start=1) if used)]
    weights = np.ones_like(y) if errors is None else 1 / np.maximum(errors, 1e-12)
    solve = np.linalg.pinv(place[:, columns] * weights[:, None]) * weights
    best = np.zeros(3)
    best[columns] = solve @ y
    if drawn is None:
        return _Fitted(best, None, None)
    draws = np.zeros((len(drawn), 3))
    draws[:, columns] = drawn @ solve.T
    spare = len(y) - len(columns)
    scatter = None
    if spare > 0:
        scatter = float(np.sqrt(np.sum(((y - place @ best) * weights) ** 2) / spare))
        if scatter > 1:
            # as wide as Student's t with so few degrees of freedom for the scatter
            wider = scatter * bootstrap.student_quantile(spare) / 1.96
            draws = best + (draws - best) * wider
    return _Fitted(best, draws, scatter)


def _stacked(optima: "Sequence[Optimum]", k: int) -> Floats | None:
    """Draws in which every optimum is a minimum, (resamples, optima)."""
    drawn = [one.draws[:, k] for one in optima if one.draws is not None]
    if len(drawn) < len(optima) or not drawn:
        return None
    stacked = np.stack(drawn, axis=1)
    # a draw without a minimum keeps its optimum where the fit has it
    fitted = np.array([np.log(one.values[k]) for one in optima if one.values is not None])
    return np.where(np.isfinite(stacked), stacked, fitted)


def _exp(ends: Interval | None) -> Interval | None:
    return None if ends is None else (float(np.exp(ends[0])), float(np.exp(ends[1])))
