"""How often the 95 % intervals of `analysis fit` hold the truth, where the truth is known.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py [--json] [--studies N]

Each study is drawn anew from L = E + A/N^alpha + B/D^beta (Chinchilla's values) with log-normal
noise, fitted and resampled. `trunks`: points of a trunk share half of the noise's variance and
whole trunks are resampled. Nominal is 95 %; 300 studies tell a share to about 1.3 points.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import pandas as pd

from analysis.fits.parametric.laws import Chinchilla
from analysis.fits.parametric.optimum import fit_law
from analysis.fits.parametric.solver import Problem
from analysis.fits.resample import group_points, intervals

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
    budgets, sizes, design = STUDIES[name]
    rng = np.random.default_rng(1)
    held = dict.fromkeys(NAMES, 0)
    began = time.perf_counter()
    for seed in range(studies):
        table = draw(rng, budgets, sizes, design)
        problem = Problem(Chinchilla.of(table), np.log(table["loss"].to_numpy(float)))
        found = intervals(fit_law(problem, STARTS), group_points(table, design), RESAMPLES, seed).of
        for parameter in NAMES:
            ends = found[parameter]
            held[parameter] += ends is not None and ends[0] <= TRUTH[parameter] <= ends[1]
    shares = {parameter: round(number / studies, 4) for parameter, number in held.items()}
    return {**shares, "seconds_a_study": round((time.perf_counter() - began) / studies, 3)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--studies", type=int, default=300)
    asked = parser.parse_args()
    found = {name: coverage(name, asked.studies) for name in STUDIES}
    if asked.json:
        print(json.dumps({"studies": asked.studies, "nominal": 0.95, "coverage": found}))
        return
    print(f"{asked.studies} studies each, nominal 95 %")
    for name, row in found.items():
        print(f"{name:16}", "  ".join(f"{key} {value:.3g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
