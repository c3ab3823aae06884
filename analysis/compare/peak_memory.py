"""Architectures at equal peak memory, next to equal FLOPs: the best size may need a larger GPU.

Memory is the peak of training on one device with the same number of sequences in one forward. Where
a model's best size for a budget takes more of it than the baseline's best size, the largest of its
sizes that takes no more is compared in its place: between tested sizes along a line in (log N, log
memory), its loss by the parabola of the budget. Where it takes less, nothing changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compare import equal_compute
from analysis.compare.equal_compute import Compared, Comparison
from analysis.fits.isoflop import IsoflopResult
from analysis.fits.minimum import Minimum
from analysis.fits.parabola import Floats
from analysis.formatting import compute, count, listing
from analysis.points.table import curve_of

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Memory:
    """Peak memory of one device while a run was trained."""

    device: str
    gb: float  # 1e9 bytes
    micro_batch: int  # sequences in one forward


@dataclass(frozen=True)
class Within:
    """One model at a budget, in the memory that the baseline's best size takes."""

    model: str
    budget: float  # FLOPs, under the convention of the points
    gb: float  # of its own best size
    baseline_gb: float
    params: float | None  # the size that is compared; None: no tested size takes so little
    gap: float | None  # nats per token: below zero the model is better
    gap_interval: Interval
    turns: bool  # it leads at one of equal FLOPs and equal peak memory, and lags at the other


@dataclass(frozen=True)
class AtEqualMemory:
    """`reason` says why there are no rows; both are empty where no memory is known at all."""

    rows: tuple[Within, ...] = ()
    device: str = ""
    reason: str = ""


def at_equal_memory(
    done: Compared, result: IsoflopResult, table: pd.DataFrame, memory: Mapping[str, Memory]
) -> AtEqualMemory:
    """Compare again what `done` compares, within the baseline's memory; `memory` by run id."""
    if not memory:
        return AtEqualMemory()
    rows = table.assign(curve=curve_of(table))
    rows = rows[rows["curve"].isin({done.baseline, *(row.model for row in done.comparisons)})]
    missing = [str(name) for name in rows["run_id"] if name not in memory]
    if missing:
        return AtEqualMemory(reason=f"the peak memory of {listing(missing)} is not known")
    known = [memory[name] for name in rows["run_id"]]
    devices, batches = ({getattr(m, name) for m in known} for name in ("device", "micro_batch"))
    if len(devices) > 1:
        return AtEqualMemory(reason=f"runs were trained on different devices: {listing(devices)}")
    if len(batches) > 1:
        return AtEqualMemory(
            reason="runs had different numbers of sequences in one forward, "
            f"{listing(sorted(map(str, batches)))}: leave runtime.micro_batch=auto, or set one "
            "number for all"
        )
    rows = rows.assign(gb=[one.gb for one in known])
    sizes = {
        name: own.groupby("params")["gb"].mean().sort_index() for name, own in rows.groupby("curve")
    }
    shrinking = [str(name) for name, gb in sizes.items() if not (np.diff(gb) > 0).all()]
    if shrinking:
        return AtEqualMemory(reason=f"memory does not grow with size in {listing(shrinking)}")
    found = []
    for told in done.comparisons:
        base, own = (
            next(m for m in result.models[name].minima if m.budget == told.budget)
            for name in (done.baseline, told.model)
        )
        limit = _gb(sizes[done.baseline], base.best_size)
        found.append(_within(told, own, sizes[told.model], limit))
    return AtEqualMemory(tuple(found), devices.pop())


def _within(told: Comparison, own: Minimum, sizes: pd.Series, limit: float) -> Within:
    best = own.best_size
    gb = _gb(sizes, best)
    if gb <= limit:
        return Within(
            told.model, told.budget, gb, limit, best, told.gap, told.gap_interval, turns=False
        )
    params = _line(np.log(sizes.to_numpy()), np.log(sizes.index.to_numpy(float)), limit)
    excess = _excess(own, params)
    if excess is None:
        return Within(told.model, told.budget, gb, limit, None, None, None, turns=False)
    gap, ends = told.gap + excess, told.gap_interval
    moved = None if ends is None else (ends[0] + excess, ends[1] + excess)
    turns = equal_compute.turns(told, gap, moved)
    return Within(told.model, told.budget, gb, limit, params, gap, moved, turns)


def _excess(minimum: Minimum, params: float) -> float | None:
    """How much higher the loss is at a size than at the best one, nats per token; None beyond the
    sizes that the parabola is fitted to."""
    parabola = minimum.parabola
    if parabola is None or not parabola.log_params[0] <= np.log(params):
        return None
    return float(parabola.loss_at(params) - parabola.loss_at(minimum.best_size))


def _gb(sizes: pd.Series, params: float) -> float:
    """Memory of a size, between those that were trained."""
    return _line(np.log(sizes.index.to_numpy(float)), np.log(sizes.to_numpy()), params)


def _line(x: Floats, y: Floats, at: float) -> float:
    """y at x = log(at), along straight lines; the first and last go on beyond."""
    if len(x) == 1:
        return float(np.exp(y[0]))
    i = int(np.clip(np.searchsorted(x, np.log(at)) - 1, 0, len(x) - 2))
    slope = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
    return float(np.exp(y[i] + slope * (np.log(at) - x[i])))


def turned(found: AtEqualMemory) -> str:
    """Where another model leads at equal peak memory than at equal FLOPs; empty: nowhere."""
    return equal_compute.turned(found.rows, f"peak memory ({found.device})")


def lines(found: AtEqualMemory, baseline: str) -> list[str]:
    """In words: a line for each comparison, or why there is none."""
    if found.reason:
        return [f"No comparison at equal peak memory: {found.reason}."]
    return [_words(row, baseline) for row in found.rows]


def _words(row: Within, baseline: str) -> str:
    said = (
        f"{row.model} at {compute(row.budget)} takes {row.gb / row.baseline_gb:.2f} times the peak "
        f"memory of {baseline}, {row.gb:.3g} GB"
    )
    if row.params is None or row.gap is None:
        return f"{said}; no tested size takes as little."
    if row.gb <= row.baseline_gb:
        return f"{said}: its best size fits."
    ends = row.gap_interval
    width = f" [{ends[0]:+.4f}, {ends[1]:+.4f}]" if ends else " (no interval)"
    size = count(row.params)
    return f"{said}; as little takes its size {size}, with a gap of {row.gap:+.4f}{width}."
