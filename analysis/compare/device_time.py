"""Architectures at equal device time, next to equal FLOPs: a FLOP is not as fast in every model.

The device time of a run is its exact FLOPs over its measured speed, times its devices; that of a
model at a budget is read at its best size, along straight lines in (log N, log T). The baseline's
best losses over their device times, joined in (log T, log L), say what it reaches in the time that
another model takes, and the time that it needs for the other's loss. Times are taken as measured:
intervals hold the noise of the losses alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compare.equal_compute import (
    Compared,
    Comparison,
    best_loss,
    compute_reaching,
    resampled_losses,
)
from analysis.fits.isoflop import IsoflopResult
from analysis.fits.minimum import Minimum
from analysis.fits.parabola import Floats
from analysis.fits.resample import percentiles
from analysis.formatting import compute, listing
from analysis.points.table import curve_of

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Measured:
    """What a run took."""

    device: str
    seconds: float  # of all its devices together


@dataclass(frozen=True)
class Timed:
    """One model against the baseline at the device time that its best size takes for a budget."""

    model: str
    budget: float  # FLOPs, under the convention of the points
    seconds: float
    baseline_seconds: float  # of the baseline's best size at the same budget
    baseline_loss: float  # that the baseline reaches in `seconds`
    gap: float  # loss - baseline_loss, nats per token: below zero the model is better
    gap_interval: Interval
    multiplier: float | None  # time that the baseline needs for the model's loss, over `seconds`
    multiplier_interval: Interval
    extrapolated: bool
    turns: bool  # it leads at one of equal FLOPs and equal device time, and lags at the other


@dataclass(frozen=True)
class AtEqualTime:
    """`reason` says why there are no rows; both are empty where no speed is known at all."""

    rows: tuple[Timed, ...] = ()
    device: str = ""
    reason: str = ""


def at_equal_time(
    done: Compared, result: IsoflopResult, table: pd.DataFrame, measured: Mapping[str, Measured]
) -> AtEqualTime:
    """Compare again what `done` compares, at equal device time; `measured` by run id."""
    if not measured:
        return AtEqualTime()
    rows = table.assign(curve=curve_of(table))
    rows = rows[rows["curve"].isin({done.baseline, *(row.model for row in done.comparisons)})]
    missing = [str(name) for name in rows["run_id"] if name not in measured]
    if missing:
        return AtEqualTime(reason=f"the speed of {listing(missing)} is not known")
    devices = sorted({measured[name].device for name in rows["run_id"]})
    if len(devices) > 1:
        return AtEqualTime(reason=f"runs were trained on different devices: {listing(devices)}")
    rows = rows.assign(seconds=[measured[name].seconds for name in rows["run_id"]])
    base = sorted(result.models[done.baseline].minima, key=lambda minimum: minimum.budget)
    times = np.array([_seconds(rows, done.baseline, minimum) for minimum in base])
    if len(times) < 2 or not np.all(np.diff(times) > 0):
        return AtEqualTime(
            reason=f"{done.baseline} needs two budgets, the larger one taking longer"
        )
    curve = np.array([[best_loss(minimum) for minimum in base]])
    drawn = [resampled_losses(result.models[done.baseline], minimum) for minimum in base]
    known = [samples for samples in drawn if samples is not None]
    curves = np.stack(known, axis=1) if len(known) == len(base) else None
    found = []
    for told in done.comparisons:
        frontier = result.models[told.model]
        minimum = next(m for m in frontier.minima if m.budget == told.budget)
        seconds = _seconds(rows, told.model, minimum)
        there = float(_losses_at(times, curve, seconds)[0])
        reached = compute_reaching(times, curve, np.array([told.loss]))[0]
        mine = resampled_losses(frontier, minimum)
        gap_interval = multiplier_interval = None
        if curves is not None and mine is not None:
            gap_interval = percentiles(mine - _losses_at(times, curves, seconds))
            multiplier_interval = percentiles(compute_reaching(times, curves, mine) / seconds)
        found.append(
            Timed(
                told.model,
                told.budget,
                seconds,
                float(times[[m.budget for m in base].index(told.budget)]),
                there,
                told.loss - there,
                gap_interval,
                float(reached / seconds) if np.isfinite(reached) else None,
                multiplier_interval,
                bool(not times[0] <= seconds <= times[-1]),
                _turns(told, told.loss - there, gap_interval),
            )
        )
    return AtEqualTime(tuple(found), devices[0])


def _turns(told: Comparison, gap: float, interval: Interval) -> bool:
    """Whether another model leads, one of the two verdicts being more than noise."""
    if interval is None or told.gap_interval is None:
        return gap * told.gap < 0
    return gap * told.gap < 0 and (told.decided or not interval[0] <= 0 <= interval[1])


def _seconds(rows: pd.DataFrame, model: str, minimum: Minimum) -> float:
    """Device seconds of a model's best size at a budget, the largest or smallest one's beyond."""
    own = rows[(rows["curve"] == model) & np.isclose(rows["budget"], minimum.budget, rtol=0.02)]
    mean = own.groupby("params")["seconds"].mean().sort_index()
    size = minimum.lowest_params if minimum.params is None else minimum.params
    x, y = np.log(mean.index.to_numpy(float)), np.log(mean.to_numpy(float))
    return float(np.exp(np.interp(np.log(size), x, y)))


def _losses_at(times: Floats, curves: Floats, seconds: float) -> Floats:
    """What each curve (sets, times) is at a time; the first and last line go on beyond."""
    x, y = np.log(times), np.log(curves)
    i = int(np.clip(np.searchsorted(x, np.log(seconds)) - 1, 0, len(x) - 2))
    slope = (y[:, i + 1] - y[:, i]) / (x[i + 1] - x[i])
    found: Floats = np.exp(y[:, i] + slope * (np.log(seconds) - x[i]))
    return found


def turned(timed: AtEqualTime) -> str:
    """Where another model leads at equal device time than at equal FLOPs; empty: nowhere."""
    found = [f"{row.model} at {compute(row.budget)}" for row in timed.rows if row.turns]
    if not found:
        return ""
    return (
        f"At equal device time ({timed.device}) the order is another than at equal compute: "
        f"{listing(found, 8)}."
    )


def lines(timed: AtEqualTime, baseline: str) -> list[str]:
    """In words: a line for each comparison, or why there is none."""
    if timed.reason:
        return [f"No comparison at equal device time: {timed.reason}."]
    return [_line(row, baseline) for row in timed.rows]


def _line(row: Timed, baseline: str) -> str:
    ends = row.gap_interval
    width = f" [{ends[0]:+.4f}, {ends[1]:+.4f}]" if ends else " (no interval)"
    line = (
        f"{row.model} at {compute(row.budget)} takes {row.seconds / row.baseline_seconds:.2f} "
        f"times the device time of {baseline}; at equal device time its gap is {row.gap:+.4f}"
        f"{width}"
    )
    if row.multiplier is not None:
        line += f" and it equals {baseline} at {row.multiplier:.3g} x the time"
    return line + (" (extrapolated)." if row.extrapolated else ".")
