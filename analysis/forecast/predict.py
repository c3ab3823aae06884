"""Predictions for points of a study: best losses, best sizes, gaps and single runs.

Units: budgets in FLOPs (under the convention of the points), loss in nats per token.
"""

from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.fits.isoflop import IsoflopResult, fit_isoflop
from analysis.forecast.extrapolate import Beyond, Guess, beyond
from analysis.formatting import compute, count, listing, typed
from analysis.points.series import ordered
from analysis.points.table import curve_of

FAR = 10.0  # times the largest budget, or below the smallest
LARGEST = 700.0  # logarithm of what a float holds
SAME = 1e-3  # relative, of a size
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Asked:
    """What one --at names: budgets, models or variants (none: all), sizes of single runs, and
    whether best losses, best sizes and gaps are wanted."""

    budgets: tuple[float, ...]
    models: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    params: tuple[float, ...] = ()
    best: bool = True


@dataclass(frozen=True)
class Best:
    """The best loss of a model at a budget, and its size."""

    model: str
    budget: float
    loss: float
    interval: Interval
    params: float
    params_interval: Interval
    how: str  # law or minima (`analysis.forecast.extrapolate`)


@dataclass(frozen=True)
class Gap:
    """Best loss of a model less that of the baseline."""

    model: str
    baseline: str
    budget: float
    gap: float
    interval: Interval


@dataclass(frozen=True)
class Run:
    """One run of a size."""

    model: str
    budget: float
    params: float
    size: str | None
    loss: float
    interval: Interval
    how: str


@dataclass(frozen=True)
class Forecast:
    """Everything that was asked for, at one level."""

    level: float
    best: tuple[Best, ...]
    gaps: tuple[Gap, ...]
    runs: tuple[Run, ...]
    warnings: tuple[Caution, ...] = field(default=())


def predict(
    table: pd.DataFrame,
    asked: list[Asked],
    *,
    level: float,
    baseline: str,
    resamples: int,
    seed: int,
) -> Forecast:
    """Forecast what is asked for from the points of `table`.

    Raises AnalysisError for a model or a size that the points do not have, and where no model can
    be carried on.
    """
    fitted = fit_isoflop(table, resamples=resamples, seed=seed)
    asked = [replace(one, models=_curves(one.models, table)) for one in asked]
    models = _models(asked, fitted)
    rows = {str(name): part for name, part in table.groupby(curve_of(table), sort=True)}
    tried = {
        name: beyond(rows[name], fitted.models[name], fitted.noise, resamples, seed)
        for name in models
    }
    known = {name: found for name, found in tried.items() if isinstance(found, Beyond)}
    refused = {name: why for name, why in tried.items() if isinstance(why, str)}
    if not known:
        raise AnalysisError(
            f"No forecast: {'; '.join(refused.values())}. Train more budgets or sizes."
        )
    best: list[Best] = []
    gaps: list[Gap] = []
    runs: list[Run] = []
    for one in asked:
        wanted = [name for name in known if not one.models or name in one.models]
        for budget in one.budgets if one.best else ():
            guesses = {name: known[name].best(np.log(budget)) for name in wanted}
            best += [_best(known[name], guess, budget, level) for name, guess in guesses.items()]
            gaps += _gaps(guesses, baseline, budget, level)
        runs += [
            _run(known[name], budget, *size, level)
            for name, budget in product(wanted, one.budgets)
            for size in _sizes(one, rows[name], name)
        ]
    said = [Caution(Code.NO_FORECAST, f"No forecast for {name}: {why}.", name)
            for name, why in refused.items()]  # fmt: skip
    said += _cautions(fitted, asked, known)
    return Forecast(level, tuple(best), tuple(gaps), tuple(runs), tuple(said))


def _curves(models: tuple[str, ...], table: pd.DataFrame) -> tuple[str, ...]:
    """The curves that are called so, else those of a model or variant that has several."""
    curves = curve_of(table)
    known, found = set(curves), []
    called = [table[column] for column in ("model", "label") if column in table]
    for name in models:
        of = [] if name in known else curves[np.any([names == name for names in called], axis=0)]
        found += sorted(set(of)) or [name]
    return tuple(dict.fromkeys(found))


def _models(asked: list[Asked], fitted: IsoflopResult) -> list[str]:
    missing = [m for one in asked for m in one.models if m not in fitted.models]
    if missing:
        raise AnalysisError(
            f"--at names model={missing[0]} and the points are of "
            f"{listing(ordered(list(fitted.models)))}: name one of these."
        )
    everyone = any(not one.models for one in asked)
    named = [m for one in asked for m in one.models]
    return ordered(list(fitted.models) if everyone else list(dict.fromkeys(named)))


def _sizes(one: Asked, rows: pd.DataFrame, model: str) -> list[tuple[float, str | None]]:
    """Parameters of the single runs, and the size's name."""
    known = rows.dropna(subset=["size"]).groupby("size")["params"].mean()
    missing = [size for size in one.sizes if size not in known.index]
    if missing and known.empty:
        raise AnalysisError(
            f"--at names size={missing[0]} and the sizes of {model} have no names: give "
            "params=<number> in its place."
        )
    if missing:
        raise AnalysisError(
            f"--at names size={missing[0]} and the points of {model} are of sizes "
            f"{listing(known.index)}: name one of these, or params=<number>."
        )
    named: list[tuple[float, str | None]] = [(float(known[size]), size) for size in one.sizes]
    names = [str(size) for size in known.index]
    for params in one.params:
        same = [name for name in names if abs(known[name] / params - 1) < SAME]
        named.append((params, same[0] if len(same) == 1 else None))
    return named


def _best(found: Beyond, loss: Guess, budget: float, level: float) -> Best:
    size = found.size(np.log(budget))
    at = f"budget={typed(budget)}"
    return Best(
        found.frontier.model,
        budget,
        _number(loss, found, at),
        _exp(loss.interval(level)),
        _number(size, found, at),
        _exp(size.interval(level)),
        found.how,
    )


def _gaps(guesses: dict[str, Guess], baseline: str, budget: float, level: float) -> list[Gap]:
    if baseline not in guesses:
        return []
    base = guesses[baseline]
    found = []
    for name, own in guesses.items():
        if name == baseline:
            continue
        gap = float(np.exp(own.value) - np.exp(base.value))
        number = min(len(own.samples), len(base.samples))
        with np.errstate(over="ignore", invalid="ignore"):  # far away; intervals leave it out
            drawn = np.exp(own.samples[:number]) - np.exp(base.samples[:number])
        laws = float(np.hypot(own.laws * np.exp(own.value), base.laws * np.exp(base.value)))
        both = replace(own, value=gap, samples=drawn, laws=laws)
        found.append(Gap(name, baseline, budget, gap, both.interval(level)))
    return found


def _run(found: Beyond, budget: float, params: float, size: str | None, level: float) -> Run:
    guess = found.run(float(np.log(params)), float(np.log(budget)))
    loss = _number(guess, found, f"budget={typed(budget)} params={typed(params)}")
    ends = _exp(guess.interval(level))
    return Run(found.frontier.model, budget, params, size, loss, ends, found.how)


def _number(guess: Guess, found: Beyond, at: str) -> float:
    """Out of its logarithm. Raises AnalysisError where no float holds it."""
    if not abs(guess.value) < LARGEST:
        raise AnalysisError(
            f"--at names {at}, where no number holds the forecast of {found.frontier.model}: name "
            "a budget and sizes that are nearer to its points."
        )
    return float(np.exp(guess.value))


def _exp(ends: Interval) -> Interval:
    """Out of their logarithms; None where no float holds them."""
    if ends is None or not max(map(abs, ends)) < LARGEST:
        return None
    return float(np.exp(ends[0])), float(np.exp(ends[1]))


def _cautions(fitted: IsoflopResult, asked: list[Asked], known: dict[str, Beyond]) -> list[Caution]:
    said = []
    budgets = sorted({budget for one in asked for budget in one.budgets})
    tried = [m.budget for name in known for m in fitted.models[name].minima]
    low, high = min(tried), max(tried)
    span = f"The points have budgets from {compute(low)} to {compute(high)}"
    within = [compute(b) for b in budgets if low <= b <= high]
    if within:
        text = f"{span}: {listing(within)} is an interpolation, which proves less than a forecast."
        said.append(Caution(Code.WITHIN_POINTS, text))
    far = [f"{compute(b)} ({b / low:.3g} times the smallest)" for b in budgets if b < low / FAR]
    far += [f"{compute(b)} ({b / high:.3g} times the largest)" for b in budgets if b > FAR * high]
    if far:
        text = f"{span}, far from {listing(far)}. Intervals hold as long as the law does."
        said.append(Caution(Code.EXTRAPOLATED, text))
    by_minima = [name for name, found in known.items() if found.how == "minima"]
    if by_minima:
        reasons = [f"{name} ({fitted.models[name].note.reason})" for name in by_minima]
        text = f"By minima, half way between a power law and one with a floor: {listing(reasons)}."
        said.append(Caution(Code.NOT_CORRECTED, text))
    if not fitted.noise.known:
        said.append(
            Caution(
                Code.NO_INTERVAL,
                "No intervals: no degree of freedom is left to estimate the noise.",
            )
        )
    sizes = [
        f"{name} {count(params)}"
        for one in asked
        for name in known
        if not one.models or name in one.models
        for params in one.params
        if _outside(params, known[name])
    ]
    if sizes:
        text = f"Sizes that the points of the model do not enclose: {listing(sizes)}."
        said.append(Caution(Code.BEYOND_THE_LAW, text))
    return said


def _outside(params: float, found: Beyond) -> bool:
    sizes = [m.parabola.log_params for m in found.frontier.minima if m.parabola]
    return bool(sizes) and not (
        min(s.min() for s in sizes) <= np.log(params) <= max(s.max() for s in sizes)
    )
