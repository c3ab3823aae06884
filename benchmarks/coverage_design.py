"""Does `design` say beforehand what studies of a grid then show?

    OMP_NUM_THREADS=1 python -m benchmarks.coverage_design [--law symmetric] [--grid demo]
        [--noise 0.003] [--studies 200] [--table]

`design` is given the law, the grid and the noise (a share of the loss, of the grid's median one in
nats); then `--studies` studies of it are drawn and fitted by `isoflop` (approach 2, corrected for
the parabola's bias) and by approach 3. Columns: bias of a and half the
width of the central 95 % of a, said and seen, by either approach; share of budgets without an
enclosed minimum, said and seen; and half the interval that `isoflop` prints over what `design` said
(median).
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd

from analysis.design.law import TrueLaw
from analysis.design.outlook import outlook
from analysis.errors import AnalysisError
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.minimum import Status
from analysis.fits.parametric.laws import Chinchilla
from analysis.fits.parametric.optimum import fit_law
from analysis.fits.parametric.solver import Problem
from benchmarks.coverage_isoflop import GRIDS, LAWS, MODELS, RESAMPLES, Grid, Law, draw

SIMULATIONS = 2000
MODEL = MODELS[1]  # of the two that are drawn under one law
CELLS = (
    *(("symmetric", grid, 0.003) for grid in GRIDS),
    *(("symmetric", "demo", noise) for noise in (0.001, 0.01)),
    *((law, grid, 0.003) for law in ("gemstones", "sparse") for grid in ("demo", "wide")),
)
SHOWN = (
    *("bias said", "bias seen", "half said", "half seen", "printed / said"),
    *("half 3 said", "half 3 seen", "lost said", "lost seen"),
)


def referee(law: Law, grid: Grid, noise: float, studies: int, seed: int = 1) -> dict[str, float]:
    """What `design` says of a grid beside what studies of it show."""
    rng = np.random.default_rng(seed)
    clean = _one(draw(rng, law, grid, 0.0, 0.0))
    true = TrueLaw(law.A, law.alpha, law.B, law.beta, law.E, "the law", (1.0, 1e15))
    nats = noise * float(clean["loss"].median())
    said = outlook(MODEL, clean, true, nats, SIMULATIONS, seed)
    assert said.interval is not None
    assert said.exponent is not None
    rows = [_study(_one(draw(rng, law, grid, noise, 0.0)), number) for number in range(studies)]
    seen = pd.DataFrame(rows)
    low, high = said.interval
    half = 0.5 * (high - low)
    return {
        "bias said": said.exponent - law.a,
        "bias seen": float(seen["a"].mean() - law.a),
        "half said": half,
        "half seen": _half(seen["a"]),
        "printed / said": float((seen["printed"] / half).median()),
        "half 3 said": said.law_half_width or np.nan,
        "half 3 seen": _half(seen["a 3"]),
        "lost said": float(np.mean([budget.risk for budget in said.budgets])),
        "lost seen": float(seen["lost"].mean()),
    }


def _one(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["model"] == MODEL].reset_index(drop=True)


def _study(table: pd.DataFrame, number: int) -> dict[str, float]:
    found = fit_isoflop(table, resamples=RESAMPLES, seed=number).models[MODEL]
    law, minima = found.params_law, found.minima
    told = {"a": np.nan if law.exponent is None else law.exponent, "printed": np.nan}
    if law.interval is not None:
        told["printed"] = 0.5 * (law.interval[1] - law.interval[0])
    told["lost"] = float(np.mean([m.status is not Status.INTERIOR for m in minima]))
    try:
        fit = fit_law(Problem(Chinchilla.of(table), np.log(table["loss"].to_numpy(float))))
        told["a 3"] = fit.values["a"]
    except AnalysisError:
        told["a 3"] = np.nan
    return told


def _half(estimates: pd.Series) -> float:
    low, high = np.percentile(estimates.dropna(), [2.5, 97.5])
    return float(0.5 * (high - low))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--law", default="symmetric", choices=LAWS)
    parser.add_argument("--grid", default="demo", choices=GRIDS)
    parser.add_argument("--noise", type=float, default=0.003)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--table", action="store_true", help="every cell, as Markdown")
    options = parser.parse_args()
    if not options.table:
        one = referee(LAWS[options.law], GRIDS[options.grid], options.noise, options.studies)
        print(json.dumps({name: round(value, 4) for name, value in one.items()}))
        return
    print(f"| law | grid | noise | {' | '.join(SHOWN)} |")
    print("| --- " * (3 + len(SHOWN)) + "|")
    for law, grid, noise in CELLS:
        found = referee(LAWS[law], GRIDS[grid], noise, options.studies)
        cells = " | ".join(
            f"{found[name]:+.3f}" if "bias" in name else f"{found[name]:.3f}" for name in SHOWN
        )
        print(f"| {law} | {grid} | {noise:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
