"""How often the 95 % intervals of `analysis fit` hold the truth, where the truth is known.

    OMP_NUM_THREADS=1 python -m benchmarks.coverage [--json] [--studies N] [--only "ladder"]

Each study is drawn from L = E + A/N^alpha + B/D^beta (Chinchilla's values) with log-normal
noise, fitted and resampled. `trunks`: points of a trunk share half of the noise's variance and
whole trunks are resampled. `grid, law` is one model on a grid of `benchmarks.coverage_isoflop` with
noise 0.3 %. Nominal is 95 %; 300 studies tell a share to about 1.3 points. `a width` is the mean
width over an oracle's, who knows how far the estimates scatter.

A ladder has D/N times each of its factors of 20 tokens a parameter at every size, spread at random
by the last number (in logs). `identified` is the share of studies whose exponent is (profile
likelihood); the share of intervals with the truth is told for these, and `a before` is that of all
studies without asking.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import pandas as pd

from analysis.fits.parametric.caution import vanished
from analysis.fits.parametric.laws import Chinchilla
from analysis.fits.parametric.optimum import fit_law
from analysis.fits.parametric.profile import judged
from analysis.fits.parametric.solver import Problem
from analysis.fits.resample import group_points, intervals
from benchmarks import coverage_isoflop as isoflop

TRUTH = {"A": 477.8, "alpha": 0.3473, "B": 2143.0, "beta": 0.3672, "E": 1.817}
TRUTH["a"] = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
NAMES = ("alpha", "beta", "E", "a")
NOISE = 0.005  # of the loss
RESAMPLES = 200
STARTS = 100
# name: budgets, sizes, design
STUDIES = {
    "240 rows": (10, 24, "rows"),
    "60 rows": (6, 10, "rows"),
    "24 rows": (4, 6, "rows"),
    "60 trunks of 4": (4, 60, "trunks"),
    "12 trunks of 5": (5, 12, "trunks"),
}


TOKENS_A_PARAMETER = 20
# name: sizes, factors of D/N, spread of log D/N
LADDERS = {
    "ladder": (24, (1,), 0.0),
    "ladder, 5 tokens": (24, (0.25,), 0.0),
    "ladder, 80 tokens": (24, (4,), 0.0),
    "ladder, D/N +- 5 %": (24, (1,), 0.05),
    "ladder, D/N over 1.3x": (24, (0.88, 1.14), 0.0),
    "ladder, D/N over 4x": (8, (0.5, 1, 2), 0.0),
}

# name: grid and law
GRIDS = {
    f"{grid}, {law}": (grid, law)
    for law in ("symmetric", "gemstones", "sparse", "soda")
    for grid in ("table 9", "demo", "seven")
}
GRID_NOISE = 0.003


def ladder(
    rng: np.random.Generator, sizes: int, factors: tuple[float, ...], spread: float
) -> pd.DataFrame:
    """One study: every size with its tokens a multiple of its parameters; no budgets."""
    params = np.tile(np.geomspace(5e7, 2e10, sizes), len(factors))
    tokens = TOKENS_A_PARAMETER * params * np.repeat(factors, sizes)
    tokens = tokens * np.exp(spread * rng.normal(size=len(params)))
    loss = TRUTH["E"] + TRUTH["A"] / params ** TRUTH["alpha"] + TRUTH["B"] / tokens ** TRUTH["beta"]
    loss = loss * np.exp(NOISE * rng.normal(size=len(params)))
    columns = {"params": params, "tokens": tokens, "loss": loss}
    return pd.DataFrame({**columns, "budget": 6 * params * tokens, "trunk": None, "seed": np.nan})


def draw(rng: np.random.Generator, budgets: int, sizes: int, design: str) -> pd.DataFrame:
    """One study: every size at every budget, tokens D = C / 6N."""
    sizes_ = np.geomspace(5e7, 2e10, sizes)
    params = np.tile(sizes_, budgets)
    budget = np.repeat(np.geomspace(1e19, 1e22, budgets), sizes)
    tokens = budget / (6 * params)
    own = rng.normal(size=len(params))
    if design == "trunks":
        own = (own + np.tile(rng.normal(size=sizes), budgets)) / np.sqrt(2)
    loss = TRUTH["E"] + TRUTH["A"] / params ** TRUTH["alpha"] + TRUTH["B"] / tokens ** TRUTH["beta"]
    trunk = [f"{size:g}" for size in params]
    columns = {"params": params, "tokens": tokens, "loss": loss * np.exp(NOISE * own)}
    return pd.DataFrame({**columns, "budget": budget, "trunk": trunk, "seed": np.nan})


def coverage(name: str, studies: int) -> dict[str, float]:
    """Share of studies whose interval holds the truth, by parameter; and seconds a study."""
    rng = np.random.default_rng(1)
    held: dict[str, list[bool]] = {parameter: [] for parameter in (*NAMES, "a before")}
    identified = []
    estimates, widths = [], []
    began = time.perf_counter()
    for seed in range(studies):
        table, design, truth = _study(rng, name)
        problem = Problem(Chinchilla.of(table), np.log(table["loss"].to_numpy(float)))
        fit = fit_law(problem, STARTS)
        found = intervals(fit, group_points(table, design), RESAMPLES, seed).of
        seen = judged(fit)
        identified.append(not vanished(fit) and (seen is None or seen.identified))
        for parameter in NAMES:
            ends = found[parameter]
            holds = ends is not None and ends[0] <= truth[parameter] <= ends[1]
            if identified[-1]:
                held[parameter].append(holds)
            if parameter == "a":
                held["a before"].append(holds)
                if ends is not None:
                    estimates.append(fit.values["a"])
                    widths.append(ends[1] - ends[0])
    shares = {
        parameter: round(float(np.mean(holds)), 4) for parameter, holds in held.items() if holds
    }
    if widths:
        width = np.mean(widths) / isoflop.oracle_width(pd.Series(estimates))
        shares["a width"] = round(float(width), 3)
    shares["identified"] = round(float(np.mean(identified)), 4)
    return {**shares, "seconds_a_study": round((time.perf_counter() - began) / studies, 3)}


def _study(rng: np.random.Generator, name: str) -> tuple[pd.DataFrame, str, dict[str, float]]:
    """Points, what is resampled, and the truth."""
    if name in GRIDS:
        grid, named = GRIDS[name]
        law = isoflop.LAWS[named]
        table = isoflop.draw(rng, law, isoflop.GRIDS[grid], GRID_NOISE, 0.0)
        one = table[table["model"] == isoflop.MODELS[1]].reset_index(drop=True)
        return one, "rows", {**vars(law), "a": law.a}
    if name in LADDERS:
        return ladder(rng, *LADDERS[name]), "rows", TRUTH
    budgets, sizes, design = STUDIES[name]
    return draw(rng, budgets, sizes, design), design, TRUTH


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--only", choices=(*STUDIES, *LADDERS, *GRIDS), help="one row")
    asked = parser.parse_args()
    names = (asked.only,) if asked.only else (*STUDIES, *LADDERS, *GRIDS)
    found = {name: coverage(name, asked.studies) for name in names}
    if asked.json:
        print(json.dumps({"studies": asked.studies, "nominal": 0.95, "coverage": found}))
        return
    print(f"{asked.studies} studies each, nominal 95 %")
    for name, row in found.items():
        print(f"{name:22}", "  ".join(f"{key} {value:.3g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
