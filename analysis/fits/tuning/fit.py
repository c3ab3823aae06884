"""From a tune study to optima with intervals and to the laws through them.

Noise is one share of the loss for the whole study, pooled from what the quadratics leave, and
intervals are Student's t with it (`analysis.fits.bootstrap`); runs of one trunk share at least
70 % of it (`analysis.fits.noise`). Cells whose optimum the runs do not enclose are named and left
out of the law.
"""

from dataclasses import dataclass, replace

import numpy as np

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.fits import bootstrap, noise
from analysis.fits.parabola import Floats
from analysis.fits.tuning import optimum
from analysis.fits.tuning.cells import Cell, TuneTable
from analysis.fits.tuning.law import Law, fit_law
from analysis.fits.tuning.optimum import CurveFit, Found, Valley
from analysis.formatting import compute, count, listing, plural

Interval = tuple[float, float]
WIDE = 1.0  # of a power's interval: the law is then a guess away from the sizes tried
NOISY = "the noise is as large as what the settings change"
ENOUGH = 0.9  # of the resamples have a minimum, else it is not enclosed


@dataclass(frozen=True)
class Optimum:
    """The best settings of a cell, as they are typed; None where the runs do not enclose them."""

    cell: Cell
    found: Found
    reason: str
    valley: Valley | None
    values: Floats | None  # (settings,)
    intervals: tuple[Interval, ...] | None
    loss: float | None  # at the optimum, nats per token
    curvature: Floats | None  # (settings, settings) second derivatives in log settings, relative
    draws: Floats | None  # (resamples, settings) logarithms
    curvature_draws: Floats | None
    wanted: tuple[int, str] | None = None  # setting and side (smaller, larger) to try next

    @property
    def enclosed(self) -> bool:
        return self.found is Found.ENCLOSED


@dataclass(frozen=True)
class CurveTuning:
    """One curve: its optima, and a law of each setting where there are any."""

    curve: str
    model: str
    optima: tuple[Optimum, ...]
    laws: tuple[Law, ...]  # one for each setting, or none
    skew: Floats  # (settings,) of (x - centre)^3, relative: all cells' own

    @property
    def enclosed(self) -> list[Optimum]:
        return [one for one in self.optima if one.enclosed]


@dataclass(frozen=True)
class Tuned:
    """All curves of a tune study."""

    over: tuple[str, ...]
    curves: dict[str, CurveTuning]
    noise: noise.Noise
    resamples: int
    warnings: tuple[Caution, ...]


def fit_tuning(table: TuneTable, resamples: int = 1000, seed: int = 0) -> Tuned:
    """Fit every cell and the laws. Raises AnalysisError where a setting has one value in all
    cells, or no optimum at all is enclosed."""
    _refuse_one_value(table, [cell for own in table.cells.values() for cell in own])
    fits = {name: optimum.fit_curve(own) for name, own in table.cells.items()}
    shared = _noise(list(fits.values()))
    known = bool(resamples and shared.known and shared.relative > 0)
    scales = bootstrap.scales(shared, resamples, seed) if known else None
    optima = {
        name: _optima(fitted, table.over, _errors(name, fitted, scales, shared.share, seed))
        for name, fitted in fits.items()
    }
    found = [one for own in optima.values() for one in own]
    if not any(one.enclosed for one in found):
        raise AnalysisError(_nothing_enclosed(found, table.over))
    curves = {}
    for name, own in optima.items():
        best = [one for one in own if one.enclosed]
        laws = (
            tuple(fit_law(best, k, table.over[k]) for k in range(len(table.over))) if best else ()
        )
        curves[name] = CurveTuning(name, table.models[name], own, laws, _skew(fits[name]))
    said = _warnings(found, curves, table.over, known)
    return Tuned(table.over, curves, shared, resamples if known else 0, tuple(said))


def _skew(fitted: CurveFit) -> Floats:
    """The cubic terms of a curve, (settings,)."""
    return np.asarray(fitted.skew(fitted.coefficients[None])[0])


def _errors(
    name: str, fitted: CurveFit, scales: Floats | None, share: float, seed: int
) -> Floats | None:
    """Fresh errors of a curve's points, (resamples, points): a trunk's are the same wherever it
    stands."""
    if scales is None:
        return None
    rng = bootstrap.generator(name, seed)
    trunks, at = np.unique(fitted.trunk, return_inverse=True)
    own = rng.standard_normal((len(scales), len(fitted.trunk)))
    common = rng.standard_normal((len(scales), len(trunks)))[:, at]
    return np.asarray((np.sqrt(1 - share) * own + np.sqrt(share) * common) * scales[:, None])


def _noise(fits: list[CurveFit]) -> noise.Noise:
    """One noise for the study; a model's runs of one trunk share at least 70 % of it."""
    parts = [fitted.residuals for fitted in fits]
    several = any(len(np.unique(f.trunk)) < len(f.trunk) for f in fits)
    return noise.combine(parts, noise.LEAST_SHARE if several else 0.0)


def _refuse_one_value(table: TuneTable, cells: list[Cell]) -> None:
    for k, setting in enumerate(table.over):
        most = max((len(cell.tried(k)) for cell in cells), default=0)
        if most < optimum.LEAST:
            other = (
                f", or leave it out with --over {table.over[1 - k]}" if len(table.over) > 1 else ""
            )
            raise AnalysisError(
                f"{setting} has {plural(most, 'value')} at most in a model, size and budget, and a "
                f"minimum takes {optimum.LEAST}: type more of them behind the command that "
                f"launched the study{other}."
            )


def _optima(fitted: CurveFit, over: tuple[str, ...], errors: Floats | None) -> tuple[Optimum, ...]:
    drawn = None if errors is None else fitted.coefficients + errors @ fitted.inverse.T
    return tuple(
        _optimum(cell, valley, fitted, over, drawn)
        for cell, valley in zip(fitted.cells, fitted.valleys, strict=True)
    )


def _optimum(
    cell: Cell,
    valley: Valley | None,
    fitted: CurveFit,
    over: tuple[str, ...],
    drawn: Floats | None,
) -> Optimum:
    nothing = Optimum(cell, Found.TOO_FEW, "", valley, None, None, None, None, None, None)
    if valley is None:
        few = [f"{n} has {len(cell.tried(k))}" for k, n in enumerate(over)]
        return replace(nothing, reason=f"{', '.join(few)} values, which do not determine a minimum")
    x, loss, curvature = (part[0] for part in _minima(fitted, valley, fitted.coefficients[None]))
    edge = optimum.lowest_at_edge(cell)
    if not np.isfinite(loss):
        reason = "the losses bend downwards" + (f"; {_edge_text(cell, over, edge)}" if edge else "")
        return replace(nothing, found=Found.NOT_CONVEX, reason=reason, wanted=edge)
    out = optimum.beyond(cell, x)
    if out is not None:
        return replace(nothing, found=Found.EDGE, reason=_edge_text(cell, over, out), wanted=out)
    draws, _, bends = (None,) * 3 if drawn is None else _minima(fitted, valley, drawn)
    intervals = None if draws is None else _intervals(draws)
    if draws is not None and intervals is None:
        falling = optimum.falling_to_edge(cell)
        if falling is not None:
            reason = _edge_text(cell, over, falling)
            return replace(nothing, found=Found.EDGE, reason=reason, wanted=falling)
        return replace(nothing, found=Found.OPEN, reason=NOISY)
    reach = None if intervals is None else _reaching(cell, intervals)
    if reach is not None and intervals is not None:
        low, high = intervals[reach[0]]
        reason = f"{over[reach[0]]} between {low:.3g} and {high:.3g}, beyond what was tried"
        return replace(nothing, found=Found.OPEN, reason=reason, wanted=reach)
    if edge is not None and intervals is None:
        reason = _edge_text(cell, over, edge)
        return replace(nothing, found=Found.EDGE, reason=reason, wanted=edge)
    return Optimum(
        cell,
        Found.ENCLOSED,
        "",
        valley,
        np.exp(x),
        intervals,
        float(loss) * valley.level,
        curvature / loss,
        draws,
        bends,
    )


def _reaching(cell: Cell, intervals: tuple[Interval, ...]) -> tuple[int, str] | None:
    """The first setting whose interval reaches beyond the values tried, and on which side."""
    for k, (low, high) in enumerate(intervals):
        tried = cell.tried(k)
        if low <= tried[0] or high >= tried[-1]:
            return k, "larger" if high >= tried[-1] else "smaller"
    return None


def _edge_text(cell: Cell, over: tuple[str, ...], edge: tuple[int, str]) -> str:
    k, side = edge
    tried = cell.tried(k)
    end = tried[0] if side == "smaller" else tried[-1]
    word = "smallest" if side == "smaller" else "largest"
    return f"best at or beyond {over[k]}={end:.4g}, the {word} that was tried"


def _minima(fitted: CurveFit, valley: Valley, rows: Floats) -> tuple[Floats, Floats, Floats]:
    return optimum.minima(valley, rows[:, valley.at], fitted.skew(rows))


def _intervals(draws: Floats) -> tuple[Interval, ...] | None:
    finite = np.isfinite(draws).all(axis=1)
    if finite.mean() < ENOUGH:
        return None
    ends = np.exp(np.percentile(draws[finite], [2.5, 97.5], axis=0))
    return tuple((float(low), float(high)) for low, high in ends.T)


def _nothing_enclosed(found: list[Optimum], over: tuple[str, ...]) -> str:
    said = [f"{_name(one)}: {one.reason}" for one in found]
    return (
        f"No optimum of {' and '.join(over)} lies within what was tried ({listing(said, 3)}): "
        f"{further(found, over)}."
    )


def further(found: list[Optimum], over: tuple[str, ...]) -> str:
    """What to try where optima stand at an edge: the values beyond it, as they are typed, or one
    setting alone where nothing lies beyond; and what to repeat where the noise is too large."""
    parts, alone = [], []
    for k, setting in enumerate(over):
        for side, factors in (("smaller", (0.25, 0.5)), ("larger", (2.0, 4.0))):
            own = [one.cell.tried(k) for one in found if one.wanted == (k, side)]
            if not own:
                continue
            end = min(t[0] for t in own) if side == "smaller" else max(t[-1] for t in own)
            whole = all(value == round(value) for tried in own for value in tried)
            values = [f"{end * f:.4g}" for f in factors if not whole or (end * f) % 1 == 0]
            if values:
                parts.append(f"{setting}={','.join(values)}")
            if len(over) > 1:
                alone.append(f"--over {over[1 - k]} --where {setting}={end:.4g}")
    said = [f"try {' and '.join(parts)}"] if parts else []
    said += [f"fit one setting alone with {alone[0]}"] if alone else []
    noisy = [_name(one) for one in found if one.found is Found.OPEN and one.wanted is None]
    if said and noisy:
        return f"{', or '.join(said)}; repeat the runs of {listing(noisy)} with seed=1,2"
    return ", or ".join(said) or "repeat the runs with seed=1,2"


def _name(one: Optimum) -> str:
    return f"{one.cell.model} {one.cell.size} at {compute(one.cell.budget)}"


def _of_law(curve: str, law: Law) -> list[Caution]:
    name, said = f"{curve}, {law.setting}", []
    if law.note:
        said.append(Caution(Code.ONE_RAY, f"{name}: {law.note}.", curve))
    if law.a_interval and law.a_interval[1] - law.a_interval[0] > WIDE:
        ends = f"{-law.a_interval[1]:.2g} to {-law.a_interval[0]:.2g}"
        text = f"{name}: the power of N is not known ({ends}); it holds near the sizes tried only."
        said.append(Caution(Code.WIDE_INTERVAL, text, curve))
    return said


def _warnings(
    found: list[Optimum], curves: dict[str, CurveTuning], over: tuple[str, ...], known: bool
) -> list[Caution]:
    said = []
    outside = [one for one in found if not one.enclosed]
    if outside:
        names = listing((f"{_name(one)} ({one.reason})" for one in outside), 4)
        said.append(
            Caution(
                Code.OPTIMUM_OUTSIDE,
                f"No optimum within what was tried, left out of the law: {names}. To have them, "
                f"{further(outside, over)}.",
            )
        )
    if not known:
        said.append(
            Caution(
                Code.NO_INTERVAL,
                "No interval: no run is to spare beside those that the quadratics need, so the "
                "noise is not known. Repeat some runs with another seed, or try more values.",
            )
        )
    for curve in curves.values():
        said += [caution for law in curve.laws for caution in _of_law(curve.curve, law)]
    sizes = [count(one.cell.params) for one in found if one.enclosed]
    if len(set(sizes)) == 1:
        text = f"One size ({sizes[0]} parameters): how the optimum goes with size is not known."
        said.append(Caution(Code.ONE_SIZE, text))
    return said
