"""A fitted law with everything that is said of it: intervals, hold-out errors, warnings, JSON."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.fits.holdout import HoldOut, Left, hold_out
from analysis.fits.parametric.caution import NOT_IDENTIFIED, cautions, vanished
from analysis.fits.parametric.laws import Law
from analysis.fits.parametric.optimum import GRID_STARTS, LawFit, fit_law
from analysis.fits.parametric.profile import Profile, judged
from analysis.fits.parametric.solver import DELTA, Problem
from analysis.fits.resample import Intervals, Method, group_points, intervals
from analysis.formatting import compute, plural


@dataclass(frozen=True)
class Asked:
    """What the fit was asked for; the same on the command line."""

    delta: float = DELTA
    starts: int = GRID_STARTS
    resamples: int = 1000
    resample: str = "auto"
    seed: int = 0
    raw: bool = False


@dataclass(frozen=True)
class Report:
    """One law on one set of points."""

    fit: LawFit
    intervals: Intervals
    hold_out: HoldOut
    warnings: tuple[Caution, ...]
    asked: Asked
    profile: Profile | None  # of a; None where the points hold it beyond doubt

    @property
    def identified(self) -> bool:
        """Whether the points hold the exponents at all."""
        return self.profile is None or self.profile.identified

    @property
    def not_identified(self) -> Caution | None:
        """What is said where they do not."""
        said = [w for w in self.warnings if w.code is Code.NOT_IDENTIFIED]
        return said[0] if said else None


def report(law: Law, table: pd.DataFrame, asked: Asked) -> Report:
    """Fit `law` to the losses of `table` (one row for each of its points) and judge the fit.

    Raises AnalysisError where there are no more points than parameters, where all losses are the
    same, or where the groups to resample are unknown.
    """
    log_loss = np.log(table["loss"].to_numpy(float))
    fit = fit_law(Problem(law, log_loss, asked.delta, raw=asked.raw), asked.starts)
    groups = group_points(table, asked.resample)
    seen = judged(fit)
    found = _held_only(fit, intervals(fit, groups, asked.resamples, asked.seed), seen)
    said = tuple(cautions(fit, found, table, seen))
    return Report(fit, found, hold_out(fit, table), said, asked, seen)


def _held_only(fit: LawFit, found: Intervals, seen: Profile | None) -> Intervals:
    """No interval for the parameters of a term that the fit does without, nor for those of terms
    that the points do not identify: nothing holds them."""
    terms = vanished(fit)
    if seen is not None and not seen.identified:
        terms = list(fit.problem.law.terms)  # the floor as well: it trades off against both
    lost = {name for term in terms for name in term.names}
    if any(term.exponent for term in terms):
        lost |= {*fit.problem.law.derived_names}
    return replace(found, of={k: None if k in lost else v for k, v in found.of.items()})


def as_json(done: Report) -> dict[str, Any]:
    """What `fit --json` prints for one law."""
    fit, found = done.fit, done.intervals
    values = dict(fit.values)
    exponents = {name: values.pop(name) for name in fit.problem.law.derived_names}
    return {
        "law": fit.problem.law.name,
        "n_points": fit.problem.points,
        "objective": fit.certificate.objective,
        "params": values,
        "exponents": exponents,
        "identified": done.identified,
        "profile": _profile(done.profile),
        "interval": {name: list(ends) if ends else None for name, ends in found.of.items()},
        "certificate": {**vars(fit.certificate)},
        "hold_out": {
            "budgets": [vars(left) for left in done.hold_out.budgets],
            "top": vars(done.hold_out.top),
        },
        "bootstrap": {
            "design": str(found.groups.design),
            "groups": found.groups.number,
            "resamples": found.resamples,
            "used": found.used,
            "method": found.method,
            "seed": done.asked.seed,
        },
        "minimised": "raw" if fit.problem.raw else "log",
        "delta": None if fit.problem.raw else fit.problem.delta,
        "warnings": list(done.warnings),
    }


def _profile(seen: Profile | None) -> dict[str, Any] | None:
    if seen is None:
        return None
    return {
        "a": seen.held.tolist(),
        "rise": seen.rise.tolist(),
        "open_below": seen.open_below,
        "open_above": seen.open_above,
        "ray": seen.ray,
        "tokens_per_param_ratio": seen.spread,
    }


def as_lines(done: Report) -> list[str]:
    """The same for a terminal."""
    fit, found, sure = done.fit, done.intervals, done.fit.certificate
    width = max(len(name) for name in found.of)
    law = fit.problem.law
    open_ = {*law.derived_names, *(name for term in law.terms for name in term.names)}
    lines = []
    for name, value in fit.values.items():
        ends = found.of[name]
        none = "no interval" if done.identified or name not in open_ else NOT_IDENTIFIED
        told = f"95 % interval {ends[0]:.5g} to {ends[1]:.5g}" if ends else none
        lines.append(f"{name:<{width}}  {value:<12.6g} {told}")
    lines += [
        f"Objective {sure.objective:.10g} ({_minimised(fit.problem)}, summed over "
        f"{plural(fit.problem.points, 'point')}), gradient {sure.gradient_norm:.1e}, "
        f"condition {sure.condition:.3g}.",
        f"{sure.starts} starts scored, {sure.polished} polished ({sure.distinct} "
        f"distinct), {sure.agree:.0%} of these at the optimum, {plural(sure.basins, 'basin')}.",
    ]
    if found.method is not Method.NONE:
        lines.append(
            f"Intervals: {found.used} resamples of {plural(found.groups.number, 'group')} "
            f"({found.groups.design}), {found.method}."
        )
    lines += [f"Left out {_left(left)}" for left in done.hold_out.budgets[:-1]]
    kind = "largest budget" if done.hold_out.top_is_a_budget else "largest compute"
    lines.append(f"Extrapolation to the {kind}: {_left(done.hold_out.top)}")
    return lines


def _minimised(problem: Problem) -> str:
    return "half the squares of the loss" if problem.raw else f"Huber {problem.delta:g}"


def _left(left: Left) -> str:
    name = compute(float(left.name)) if left.name[0].isdigit() else left.name
    if left.mean is None or left.rms is None:
        return f"{name}: too few points remain to fit."
    return (
        f"{name}: loss predicted {_share(left.mean, '+')} on average, {_share(left.rms)} rms "
        f"over {plural(left.n_points, 'point')}."
    )


def _share(value: float, sign: str = "") -> str:
    """In percent; in powers of ten where a loss is next to nothing."""
    return f"{value:{sign}.2%}" if abs(value) < 100 else f"{100 * value:{sign}.3g}%"
