"""Seconds to a certified fit of 240 points and to 1,000 resamples, beside scipy's L-BFGS-B.

    OMP_NUM_THREADS=1 python benchmarks/fit.py [--json] [--points CSV] [--scipy-starts N]

Points: a CSV (params, tokens, loss, and `kept` where given), else chinchilla_245.csv in the folder
that MOR_PUBLIC_POINTS names, else 240 drawn from the same law. Both solvers minimise the same sum
of Huber losses (delta 1e-3) from the same 4,500 starts. scipy runs one start at a time, as
published fits do, with finite differences (`numeric`) and with the exact gradient (`exact`); by
default on every 30th start, and its seconds for all 4,500 are that time x 30. `projection` is
variable projection as arXiv 2603.22339 describes it (no package of it is on PyPI): squares of the
loss, E, A and B by least squares at 32 x 32 exponents, Nelder-Mead from the best; beside it our fit
with --objective raw. Objectives are never scaled. Seconds are of processor time, so a busy machine
changes them little.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from analysis.fits.parametric.laws import Chinchilla
from analysis.fits.parametric.optimum import GRID_STARTS, fit_law, make_starts
from analysis.fits.parametric.solver import Problem, score
from analysis.fits.resample import group_points, intervals

PUBLIC = Path(os.environ.get("MOR_PUBLIC_POINTS", "")) / "chinchilla_245.csv"
REPEATS = 3
RESAMPLES = 1000
SAME = 1e-3  # a start that ends within 0.1 % of the best objective


def points_of(path: Path | None) -> tuple[pd.DataFrame, str]:
    """The points, and where they are from."""
    found = path or (PUBLIC if PUBLIC.is_file() else None)
    if found is None:
        return _synthetic(), "synthetic, 240 points of Chinchilla's law with 0.5 % noise"
    table = pd.read_csv(found)
    return (table[table["kept"]] if "kept" in table else table), found.name


def _synthetic() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    params = np.exp(rng.uniform(np.log(5e7), np.log(2e10), 240))
    tokens = np.exp(rng.uniform(np.log(2e8), np.log(1e12), 240))
    loss = 1.817 + 477.8 / params**0.3473 + 2143 / tokens**0.3672
    noisy = loss * np.exp(0.005 * rng.normal(size=240))
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": noisy})


def ours(problem: Problem, table: pd.DataFrame) -> dict[str, float]:
    """Medians of three: the fit with its certificate, and the resamples from it."""
    fits, boots = [], []
    for _ in range(REPEATS):
        began = time.process_time()
        fit = fit_law(problem, GRID_STARTS)
        fitted = time.process_time()
        intervals(fit, group_points(table, "rows"), RESAMPLES, 0)
        fits.append(fitted - began)
        boots.append(time.process_time() - fitted)
    return {
        "fit_s": float(np.median(fits)),
        "bootstrap_1000_s": float(np.median(boots)),
        "objective": fit.certificate.objective,
        "gradient_norm": fit.certificate.gradient_norm,
        "agree": fit.certificate.agree,
    }


def scipy_from(problem: Problem, starts: np.ndarray, exact: bool) -> dict[str, Any]:
    """L-BFGS-B with its default tolerances, start by start, on an objective written for one."""
    value, value_and_slope = _lean(problem)
    began = time.process_time()
    objectives = []
    for start in starts:
        with np.errstate(all="ignore"):
            goal = value_and_slope if exact else value
            objectives.append(minimize(goal, start, method="L-BFGS-B", jac=exact or None).fun)
    seconds = time.process_time() - began
    return {
        "starts": len(starts),
        "measured_s": seconds,
        "all_starts_s": seconds * GRID_STARTS / len(starts),
        "objective": float(np.nanmin(objectives)),
        "ends": objectives,
    }


def _lean(
    problem: Problem,
) -> tuple[Callable[[np.ndarray], float], Callable[[np.ndarray], tuple[float, np.ndarray]]]:
    """The objective of one start with no batch around it, without and with its gradient."""
    u, v = problem.law.log_size(np.zeros((1, 5)))[0], problem.law.log_tokens
    wanted, delta = problem.log_loss, problem.delta

    def terms(theta: np.ndarray) -> tuple[np.ndarray, ...]:
        size, data, floor = theta[0] - theta[1] * u, theta[2] - theta[3] * v, theta[4]
        top = np.maximum(np.maximum(size, data), floor)
        parts = np.exp(size - top), np.exp(data - top), np.exp(floor - top)
        total = parts[0] + parts[1] + parts[2]
        return (top + np.log(total) - wanted, total, *parts)

    def huber(residual: np.ndarray) -> float:
        inner = np.minimum(np.abs(residual), delta)
        return float(inner @ (np.abs(residual) - 0.5 * inner))

    def value(theta: np.ndarray) -> float:
        return huber(terms(theta)[0])

    def value_and_slope(theta: np.ndarray) -> tuple[float, np.ndarray]:
        residual, total, size, data, floor = terms(theta)
        force = np.clip(residual, -delta, delta) / total
        size, data = force * size, force * data
        slope = [size.sum(), -(size @ u), data.sum(), -(data @ v), force @ floor]
        return huber(residual), np.array(slope)

    return value, value_and_slope


def rival(problem: Problem, table: pd.DataFrame) -> dict[str, Any] | str:
    """The PyPI package `chinchilla` where it is installed: BFGS on the mean, from 32 of the starts
    (two a parameter), processor time of its workers included; or the words that it is not."""
    if find_spec("chinchilla") is None:
        return "PyPI package `chinchilla`: not installed, so not measured"
    from chinchilla import Chinchilla as Theirs
    from chinchilla._metrics import log_huber

    wide = {"e": (-0.5, 0.5), "a": (5.0, 15.0), "b": (5.0, 15.0)}
    grid = {**wide, "alpha": (0.5, 1.0), "beta": (0.5, 1.0)}
    goal = partial(log_huber, delta=problem.delta)
    with tempfile.TemporaryDirectory() as folder:
        theirs = Theirs(project_dir=folder, param_grid=grid, loss_fn=goal, log_level=50)
        for params, tokens, loss in zip(
            table["params"], table["tokens"], table["loss"], strict=True
        ):
            theirs.append(N=params, D=tokens, loss=loss)
        began = sum(os.times()[:4])
        with np.errstate(all="ignore"):
            theirs.fit(parallel=False)
        seconds = sum(os.times()[:4]) - began
    found = theirs.params
    theta = [np.log(found["A"]), found["alpha"], np.log(found["B"]), found["beta"]]
    objective = float(score(problem, np.array([[*theta, np.log(found["E"])]]))[0])
    return {
        "starts": 32,
        "measured_s": seconds,
        "all_starts_s": seconds * GRID_STARTS / 32,
        "objective": objective,
    }


def projection(table: pd.DataFrame) -> dict[str, float]:
    """Medians of three of variable projection and of our fit of the same squares."""
    loss = table["loss"].to_numpy(float)
    log_params, log_tokens = (np.log(table[c].to_numpy(float)) for c in ("params", "tokens"))

    def squares(exponents: np.ndarray) -> float:
        size, data = np.exp(-exponents[0] * log_params), np.exp(-exponents[1] * log_tokens)
        design = np.stack([size, data, np.ones_like(size)], axis=1)
        found = np.linalg.lstsq(design, loss, rcond=None)[0]
        return float(np.sum((design @ found - loss) ** 2))

    problem = Problem(Chinchilla.of(table), np.log(loss), raw=True)
    grid = np.linspace(0.05, 0.95, 32)
    times: dict[str, list[float]] = {"measured_s": [], "ours_s": []}
    for _ in range(REPEATS):
        began = time.process_time()
        best = min((squares(np.array([x, y])), x, y) for x in grid for y in grid)
        options = {"xatol": 1e-10, "fatol": 1e-15, "maxiter": 2000}
        ended = minimize(squares, best[1:], method="Nelder-Mead", options=options)
        projected = time.process_time()
        fit = fit_law(problem, GRID_STARTS)
        times["measured_s"].append(projected - began)
        times["ours_s"].append(time.process_time() - projected)
    found = {name: float(np.median(values)) for name, values in times.items()}
    return {
        **found,
        "times_our_seconds": found["measured_s"] / found["ours_s"],
        "objective": 0.5 * float(ended.fun),
        "times_our_objective": 0.5 * float(ended.fun) / fit.certificate.objective,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--points", type=Path)
    parser.add_argument("--scipy-starts", type=int, default=150)
    asked = parser.parse_args()
    table, source = points_of(asked.points)
    problem = Problem(Chinchilla.of(table), np.log(table["loss"].to_numpy(float)))
    mine = ours(problem, table)
    grid = make_starts(problem.law, GRID_STARTS)
    chosen = grid[:: max(1, GRID_STARTS // asked.scipy_starts)]
    report: dict[str, Any] = {"points": len(table), "source": source, "starts": GRID_STARTS}
    report["ours"] = mine
    for name, exact in (("scipy_numeric", False), ("scipy_exact", True)):
        found = scipy_from(problem, chosen, exact)
        ends = np.array(found.pop("ends"))
        near = float(np.mean(ends <= mine["objective"] * (1 + SAME)))
        report[name] = {**_beside(found, mine), "near_our_optimum": near}
    report["projection"] = projection(table)
    theirs = rival(problem, table)
    report["rival"] = theirs if isinstance(theirs, str) else _beside(theirs, mine)
    if asked.json:
        print(json.dumps(report))
        return
    print(f"{len(table)} points ({source}), {GRID_STARTS} starts")
    print(
        f"ours           {mine['fit_s']:.2f} s to objective {mine['objective']:.12g}, gradient "
        f"{mine['gradient_norm']:.0e}; 1,000 resamples {mine['bootstrap_1000_s']:.2f} s"
    )
    row = report["projection"]
    print(
        f"projection     {row['measured_s']:.3f} s, ours (--objective raw) {row['ours_s']:.3f} s; "
        f"objective {row['objective']:.12g}, {row['times_our_objective']:.7f} of ours"
    )
    for name in ("scipy_numeric", "scipy_exact", "rival"):
        row = report[name]
        if isinstance(row, str):
            print(row)
            continue
        print(
            f"{name:14} {row['all_starts_s']:.1f} s for all starts (scaled from {row['starts']} in "
            f"{row['measured_s']:.1f} s), {row['times_our_seconds']:.0f} times ours; objective "
            f"{row['objective']:.12g}, {row['times_our_objective']:.7f} of ours"
        )
        if "near_our_optimum" in row:
            print(f"{'':14} {row['near_our_optimum']:.0%} of its starts within 0.1 % of ours")


def _beside(found: dict[str, Any], mine: dict[str, float]) -> dict[str, Any]:
    return {
        **found,
        "times_our_seconds": found["all_starts_s"] / mine["fit_s"],
        "times_our_objective": found["objective"] / mine["objective"],
    }


if __name__ == "__main__":
    main()
