"""Architectures at equal device time, next to equal FLOPs: a FLOP is not as fast in every model.

Speed (exact FLOPs a second of one device) belongs to a model and its size, not to a budget: it is
pooled over all runs of a curve and size, their FLOPs over their seconds. The device time of a run
is its exact FLOPs over that speed; that of a model at a budget is read at its best size, along
straight lines in (log N, log T). The baseline's best losses over their device times, joined as over
compute (`analysis.compare.reaching`), say what it reaches in the time that another model takes, and
the time that it needs for the other's loss. Intervals hold the noise of the losses alone; how far
single runs scatter about the pooled speeds is said, and no order turns that this scatter could turn
as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compare import equal_compute
from analysis.compare.equal_compute import Compared
from analysis.compare.reaching import Curves, baseline_of, resampled_losses
from analysis.fits.bootstrap import student_quantile
from analysis.fits.isoflop import IsoflopResult
from analysis.fits.minimum import Minimum
from analysis.fits.parabola import Floats
from analysis.fits.resample import percentiles
from analysis.formatting import compute, count, listing
from analysis.points.table import curve_of

Interval = tuple[float, float] | None
BEYOND = " (extrapolated)"


@dataclass(frozen=True)
class Measured:
    """What a run took."""

    device: str
    seconds: float  # of all its devices together
    flops: float  # exact


@dataclass(frozen=True)
class Timed:
    """One model against the baseline at the device time that its best size takes for a budget."""

    model: str
    budget: float  # FLOPs, under the convention of the points
    seconds: float
    seconds_error: float | None  # of seconds over the baseline's, relative: scatter of the speeds
    baseline_seconds: float  # of the baseline's best size at the same budget
    baseline_loss: float  # that the baseline reaches in `seconds`
    gap: float  # loss - baseline_loss, nats per token: below zero the model is better
    gap_interval: Interval
    multiplier: float | None  # time that the baseline needs for the model's loss, over `seconds`
    multiplier_interval: Interval
    gap_extrapolated: bool  # `seconds` lie outside of those of the baseline's budgets
    multiplier_extrapolated: bool  # the time that the baseline needs lies outside of them
    unsure: bool  # speeds as far apart as single runs scatter could change the sign of the gap
    turns: bool  # it leads at one of equal FLOPs and equal device time, and lags at the other


@dataclass(frozen=True)
class AtEqualTime:
    """`reason` says why there are no rows; both are empty where no speed is known at all."""

    rows: tuple[Timed, ...] = ()
    device: str = ""
    reason: str = ""
    scatter: float | None = None  # of single runs' speeds, relative standard deviation


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
    clock = _Clock(rows, measured)
    base = sorted(result.models[done.baseline].minima, key=lambda minimum: minimum.budget)
    times = np.array([clock.seconds(done.baseline, minimum) for minimum in base])
    if reason := _no_curve(done.baseline, base, times):
        return AtEqualTime(reason=reason)
    reference = baseline_of(result.models[done.baseline], base, times)
    found = []
    for told in done.comparisons:
        frontier = result.models[told.model]
        minimum = next(m for m in frontier.minima if m.budget == told.budget)
        seconds = clock.seconds(told.model, minimum)
        at = [m.budget for m in base].index(told.budget)
        there = float(reference.curve.losses_at(seconds)[0])
        mine = resampled_losses(frontier, minimum)
        error = clock.error((told.model, minimum), (done.baseline, base[at]))
        unsure = error is None or _changes_sign(
            told.loss, reference.curve, seconds, clock.range(error)
        )
        gap_interval = None
        if reference.drawn is not None and mine is not None:
            gap_interval = percentiles(mine - reference.drawn.losses_at(seconds))
        k, k_interval, outside = reference.multiplier(told.loss, mine, seconds)
        found.append(
            Timed(
                told.model,
                told.budget,
                seconds,
                error,
                float(times[at]),
                there,
                told.loss - there,
                gap_interval,
                k,
                k_interval,
                reference.curve.outside(seconds),
                outside,
                unsure,
                not unsure and equal_compute.turns(told, told.loss - there, gap_interval),
            )
        )
    return AtEqualTime(tuple(found), devices[0], scatter=clock.scatter)


class _Clock:
    """Device seconds of models at their best sizes, by the pooled speed of each curve and size."""

    def __init__(self, rows: pd.DataFrame, measured: Mapping[str, Measured]) -> None:
        runs = [measured[name] for name in rows["run_id"]]
        self.rows: pd.DataFrame = rows.assign(
            flops=[run.flops for run in runs], seconds=[run.seconds for run in runs]
        )
        by_size = self.rows.groupby(["curve", "params"])
        total = by_size[["flops", "seconds"]].transform("sum")
        self.rows["pooled"] = total["flops"] / total["seconds"]
        self.rows["share"] = (self.rows["flops"] / total["flops"]) ** 2
        self.shares = by_size["share"].sum()  # one over the runs that count behind a speed
        self.freedom = len(rows) - len(self.shares)
        self.rows["speed"] = np.log(self.rows["flops"] / self.rows["seconds"])
        off = self.rows["speed"] - by_size["speed"].transform("mean")
        self.scatter = float(np.sqrt((off**2).sum() / self.freedom)) if self.freedom else None

    def seconds(self, model: str, minimum: Minimum) -> float:
        """At a model's best size for a budget, at the largest or smallest one's beyond."""
        budgets = self.rows["budget"]
        own = self.rows[
            (self.rows["curve"] == model) & np.isclose(budgets, minimum.budget, rtol=0.02)
        ]
        time = (own["flops"] / own["pooled"]).groupby(own["params"]).mean().sort_index()
        x, y = np.log(time.index.to_numpy(float)), np.log(time.to_numpy(float))
        return float(np.exp(np.interp(np.log(minimum.best_size), x, y)))

    def error(self, *models: tuple[str, Minimum]) -> float | None:
        """Relative standard error of the ratio of two models' times; None where no size has two
        runs."""
        if self.scatter is None:
            return None
        return self.scatter * float(np.sqrt(sum(self._share_at(*one) for one in models)))

    def _share_at(self, model: str, minimum: Minimum) -> float:
        """Variance of the speed at a model's best size, in units of a single run's: of the nearest
        size."""
        shares: pd.Series = self.shares.xs(model)
        sizes = np.log(shares.index.to_numpy(float))
        return float(shares.iloc[int(np.argmin(abs(sizes - np.log(minimum.best_size))))])

    def range(self, error: float) -> float:
        """Half width (95 %) of the logarithm of the ratio."""
        return student_quantile(self.freedom) * error


def _no_curve(baseline: str, base: list[Minimum], times: Floats) -> str:
    """Why the baseline's losses are no curve over device time; empty: they are."""
    if len(base) < 2:
        return f"{baseline} has one budget, and a curve of loss over time needs two"
    late = next((i for i in range(1, len(times)) if not times[i] > times[i - 1]), None)
    if late is None:
        return ""
    at = [f"{compute(base[i].budget)} ({count(base[i].best_size)})" for i in (late, late - 1)]
    return (
        f"the best size of {baseline} at {at[0]} takes {times[late]:.3g} s and that at {at[1]} "
        f"{times[late - 1]:.3g} s: by the measured speeds more compute takes no longer there"
    )


def _changes_sign(loss: float, curve: Curves, seconds: float, off: float) -> bool:
    """Whether the gap at equal time has two signs while seconds are off by so much."""
    ends = [
        loss - float(curve.losses_at(seconds * factor)[0]) for factor in (np.exp(-off), np.exp(off))
    ]
    return bool(ends[0] * ends[1] < 0)


def turned(timed: AtEqualTime) -> str:
    """Where another model leads at equal device time than at equal FLOPs; empty: nowhere."""
    return equal_compute.turned(timed.rows, f"device time ({timed.device})")


def lines(timed: AtEqualTime, baseline: str) -> list[str]:
    """In words: a line for each comparison, or why there is none."""
    if timed.reason:
        return [f"No comparison at equal device time: {timed.reason}."]
    if not timed.rows:
        return []
    return [_scatter(timed), *(_line(row, baseline) for row in timed.rows)]


def _scatter(timed: AtEqualTime) -> str:
    unsure = [f"{row.model} at {compute(row.budget)}" for row in timed.rows if row.unsure]
    said = "No size has two runs: how far speeds of single runs scatter is not known"
    if timed.scatter is not None:
        said = (
            f"Speeds of single runs scatter by {100 * timed.scatter:.2g} % (standard deviation) "
            "within a model and size; times are by speeds pooled over the runs of each"
        )
    more = f"; too far to say who leads at equal device time: {listing(unsure, 8)}"
    return f"{said}{more if unsure else ''}."


def _line(row: Timed, baseline: str) -> str:
    ends = row.gap_interval
    width = f" [{ends[0]:+.4f}, {ends[1]:+.4f}]" if ends else " (no interval)"
    line = (
        f"{row.model} at {compute(row.budget)} takes {row.seconds / row.baseline_seconds:.2f} "
        f"times the device time of {baseline}; at equal device time its gap is {row.gap:+.4f}"
        f"{width}{BEYOND if row.gap_extrapolated else ''}"
    )
    if row.multiplier is not None:
        line += f" and it equals {baseline} at {row.multiplier:.3g} x the time"
        line += BEYOND if row.multiplier_extrapolated else ""
    return f"{line}."
