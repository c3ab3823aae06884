"""Forecasts against what the runs said in the end."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.fits.bootstrap import student_quantile
from analysis.fits.isoflop import IsoflopResult
from analysis.fits.minimum import Vertex
from analysis.forecast.predict import Forecast
from analysis.forecast.record import digests, names_of
from analysis.formatting import compute, count, listing, plural
from analysis.points.table import PointSet, curve_of

NORMAL = 1e6  # degrees of freedom
SAME = 1e-3  # relative, of a budget or a size
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Told:
    """One prediction."""

    what: str  # best loss, N_opt, gap or run
    model: str
    budget: float
    predicted: float
    interval: Interval


@dataclass(frozen=True)
class Scored(Told):
    """The same with what was `measured` (None: not yet, for `reason`); z in standard errors of the
    band. A measurement by nothing but the forecast's own points is no test of it: neither hit nor
    z."""

    measured: float | None
    hit: bool | None
    z: float | None
    reason: str = ""


@dataclass(frozen=True)
class Calibration:
    """Over all that is measured and has an interval: how many, the share inside and the root mean
    square of z (1 where bands are as wide as they say)."""

    number: int
    hits: int
    z_rms: float | None


def score(
    content: dict[str, Any], done: Forecast, points: PointSet, fitted: IsoflopResult
) -> tuple[list[Scored], list[Caution]]:
    """Every prediction of one file. Raises AnalysisError where the points are of another convention
    or corpus than those that it was made from."""
    for column, known in (
        ("convention", [content["convention"]] if content["convention"] else []),
        ("data_fingerprint", content["data_fingerprint"]),
    ):
        now = points.distinct(column)
        if known and now and known != now:
            raise AnalysisError(
                f"The forecast was made from points with {column} {listing(known)} and these have "
                f"{listing(now)}: give points of the same {column}."
            )
    told_of = set(content["points"])
    new = points.table[[name not in told_of for name in names_of(points.table)]]
    rows = []
    for best in done.best:
        found, why = _minimum(fitted, best.model, best.budget)
        tested = len(_at(new, best.model, best.budget)) > 0
        for what, value, ends, measured in (
            ("best loss", best.loss, best.interval, found.loss if found else None),
            ("N_opt", best.params, best.params_interval, found.params if found else None),
        ):
            told = Told(what, best.model, best.budget, value, ends)
            rows.append(_scored(told, measured, done.level, why, tested))
    for gap in done.gaps:
        own, why = _minimum(fitted, gap.model, gap.budget)
        base, other = _minimum(fitted, gap.baseline, gap.budget)
        told = Told(f"gap to {gap.baseline}", gap.model, gap.budget, gap.gap, gap.interval)
        measured = own.loss - base.loss if own and base else None
        tested = any(len(_at(new, name, gap.budget)) for name in (gap.model, gap.baseline))
        rows.append(_scored(told, measured, done.level, why or other, tested))
    for run in done.runs:
        of = _at(points.table, run.model, run.budget, run.params)
        measured = float(of["loss"].mean()) if len(of) else None
        why = "" if measured is not None else "no such run has finished"
        told = Told(f"run of {count(run.params)}", run.model, run.budget, run.loss, run.interval)
        tested = len(_at(new, run.model, run.budget, run.params)) > 0
        rows.append(_scored(told, measured, done.level, why, tested))
    return rows, _changed(content["points"], points)


def calibration(rows: list[Scored]) -> Calibration:
    """How the bands have done so far."""
    judged = [row for row in rows if row.hit is not None]
    z = [row.z for row in judged if row.z is not None]
    rms = float(np.sqrt(np.mean(np.square(z)))) if z else None
    return Calibration(len(judged), sum(bool(row.hit) for row in judged), rms)


def _minimum(fitted: IsoflopResult, model: str, budget: float) -> tuple[Vertex | None, str]:
    """The enclosed minimum, or why there is none."""
    frontier = fitted.models.get(model)
    minima = frontier.minima if frontier else ()
    found = next((m for m in minima if abs(m.budget / budget - 1) < SAME), None)
    if found is None:
        return None, f"{model} has no points at {compute(budget)}"
    if found.loss is None or found.params is None or found.tokens is None:
        return None, f"no enclosed minimum ({found.reason})"
    return Vertex(found.params, found.tokens, found.loss), ""


def _at(
    table: pd.DataFrame, model: str, budget: float, params: float | None = None
) -> pd.DataFrame:
    """The points of a model at a budget, of one size or of all."""
    rows = table[(curve_of(table) == model) & (np.abs(table["budget"] / budget - 1) < SAME)]
    return rows if params is None else rows[np.abs(rows["params"] / params - 1) < SAME]


def _scored(told: Told, measured: float | None, level: float, reason: str, tested: bool) -> Scored:
    ends = told.interval
    if measured is not None and not tested:
        reason, ends = "among the forecast's points", None
    if measured is None or ends is None:
        return Scored(**vars(told), measured=measured, hit=None, z=None, reason=reason)
    values = np.array([ends[0], told.predicted, ends[1], measured])
    low, middle, high, at = (np.log(values) if told.what == "N_opt" else values).tolist()
    reach = high - middle if at > middle else middle - low
    z = (at - middle) / reach * student_quantile(NORMAL, level) if reach > 0 else None
    return Scored(**vars(told), measured=measured, hit=ends[0] <= measured <= ends[1], z=z)


def _changed(before: dict[str, str], points: PointSet) -> list[Caution]:
    now = digests(points.table)
    changed = [name for name, digest in before.items() if name in now and now[name] != digest]
    gone = [name for name in before if name not in now]
    said = []
    for names, what in ((changed, "have other numbers now"), (gone, "are not there any more")):
        if names:
            text = f"{plural(len(names), 'point')} of the forecast {what}: {listing(names, 3)}."
            said.append(Caution(Code.POINTS_CHANGED, text))
    return said
