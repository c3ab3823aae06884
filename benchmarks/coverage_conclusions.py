"""How often `joint` holds the true phi and `compare` the true k, and how often `agree` lets a false
conclusion hold.

    OMP_NUM_THREADS=1 python -m benchmarks.coverage_conclusions phi|k|agree \
        [--law symmetric] [--grid demo] [--noise 0.003] [--studies 200] [--k 1.2]

`phi`: three depths (r = 1, 2, 3; two thirds of a looped model's weights are in its block) under the
law of arXiv 2604.21106, phi 0.459, at the sizes of the grid around N_opt of `--law`; the share of
intervals that hold phi, and of studies where it is refused that phi is its true value. `agree`: two
models under one law, as in `benchmarks.coverage_isoflop`; a study is false where a conclusion
*holds* that the law does not have: any leader, any larger exponent, the wrong side of a = 0.5 (all
of them where the law's a is 0.5). `k`: the second of two models reaches with D tokens what the
first reaches with k D; the mean k at all budgets by minima, laws and pairs, how often the
intervals hold the true one and how wide they are. 200 studies tell a share of 5 % to about 1.5
points.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd

from analysis.compare.agree import conclusions, make_case
from analysis.compare.equal_compute import compare
from analysis.compare.multiplier import multipliers
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.parametric.laws import Joint
from analysis.fits.parametric.nested import p_value
from analysis.fits.parametric.optimum import fit_law
from analysis.fits.parametric.solver import Problem
from analysis.fits.resample import group_points, intervals
from benchmarks.coverage_isoflop import GRIDS, LAWS, MODELS, Grid, Law, budgets_of, draw

RESAMPLES = 200
STARTS = 300
DEPTHS = (1, 2, 3)
PHI = 0.459
LOOPED = 2 / 3
K = 1.2


def looped(rng: np.random.Generator, law: Law, grid: Grid, noise: float) -> pd.DataFrame:
    """One study of three depths; params are unique weights, tokens follow from what a token
    meets."""
    budgets = budgets_of(grid)
    params = law.optimum(budgets)[:, None] * np.geomspace(1 / grid.reach, grid.reach, grid.sizes)
    tables = []
    for r in DEPTHS:
        rec = (LOOPED if r > 1 else 0.0) * params
        once = params - rec
        tokens = budgets[:, None] / (6 * (once + r * rec))
        loss = law.loss(once + r**PHI * rec, tokens)
        loss = loss * np.exp(noise * rng.standard_normal(params.shape))
        columns = {"params": params, "n_once": once, "n_rec": rec, "tokens": tokens, "loss": loss}
        table = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
        tables.append(table.assign(budget=np.repeat(budgets, grid.sizes), r=r, trunk=None))
    return pd.concat(tables, ignore_index=True)


def phi(law: Law, grid: Grid, noise: float, studies: int) -> dict[str, float]:
    """Shares over the studies, and the mean error of phi."""
    rng = np.random.default_rng(1)
    rows = []
    for seed in range(studies):
        table = looped(rng, law, grid, noise)
        problem = Problem(Joint.of(table), np.log(table["loss"].to_numpy(float)))
        fit = fit_law(problem, STARTS)
        found = intervals(fit, group_points(table, "rows"), RESAMPLES, seed)
        ends, chance = found.of["phi"], p_value(fit, found, PHI)
        told = {"phi bias": fit.values["phi"] - PHI}
        if ends is not None and chance is not None:
            told |= {"phi held": float(ends[0] <= PHI <= ends[1]), "width": ends[1] - ends[0]}
            told |= {"phi refused": float(chance < 0.05)}
        rows.append(told)
    return {str(name): float(value) for name, value in pd.DataFrame(rows).mean().items()}


def agree(law: Law, grid: Grid, noise: float, studies: int) -> dict[str, float]:
    """Shares of the studies with a false conclusion that holds, by its kind."""
    rng = np.random.default_rng(1)
    rows = []
    for seed in range(studies):
        table = draw(rng, law, grid, noise, 0.0)
        case = make_case(table, "as given", "as given", None, resamples=RESAMPLES, seed=seed)
        held = [c for c in conclusions([case]) if c.survives == "holds"]
        true = "" if np.isclose(law.a, 0.5) else "N" if law.a > 0.5 else "D"
        wrong = [c.question for c in held if c.answer != true]
        told = {"false": float(bool(wrong)), "leads": float(any("leads" in q for q in wrong))}
        for approach in (1, 2, 3):
            for kind in ("larger a", "grows faster"):
                name = f"{kind} (approach {approach})"
                told[name] = float(any(q.startswith(name) for q in wrong))
        rows.append(told)
    return {str(name): float(value) for name, value in pd.DataFrame(rows).mean().items()}


def ahead(table: pd.DataFrame, law: Law, gain: float = K) -> pd.DataFrame:
    """The points with the second model's loss at `gain` times its tokens."""
    params, tokens = table["params"].to_numpy(float), table["tokens"].to_numpy(float)
    factor = np.where(table["model"] == MODELS[1], gain, 1.0)
    better = law.loss(params, factor * tokens) / law.loss(params, tokens)
    return table.assign(loss=table["loss"] * better, size=None)


def k(law: Law, grid: Grid, noise: float, studies: int, gain: float) -> dict[str, float]:
    """Mean multiplier, share of intervals that hold it and mean width, by its way."""
    rng = np.random.default_rng(1)
    rows = []
    for seed in range(studies):
        table = ahead(draw(rng, law, grid, noise, 0.0), law, gain)
        fitted = fit_isoflop(table, resamples=RESAMPLES, seed=seed)
        found = [
            ("minima", row.multiplier, row.multiplier_interval)
            for row in compare(fitted, MODELS[0]).comparisons
        ]
        others = multipliers(table, MODELS[0], resamples=RESAMPLES, seed=seed)
        for way, value, ends in found + [(row.by, row.multiplier, row.interval) for row in others]:
            told = {"way": way, "k": value}
            if ends is not None:
                told |= {"held": float(ends[0] <= gain <= ends[1]), "width": ends[1] - ends[0]}
            rows.append(told)
    means = pd.DataFrame(rows).groupby("way").mean()
    return {f"{way} {name}": float(means.loc[way, name]) for way in means.index for name in means}


REFEREES = {"phi": phi, "agree": agree}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("of", choices=(*REFEREES, "k"))
    parser.add_argument("--law", choices=LAWS, default="symmetric")
    parser.add_argument("--grid", choices=GRIDS, default="demo")
    parser.add_argument("--noise", type=float, default=0.003)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--k", type=float, default=K)
    asked = parser.parse_args()
    given = (LAWS[asked.law], GRIDS[asked.grid], asked.noise, asked.studies)
    found = k(*given, asked.k) if asked.of == "k" else REFEREES[asked.of](*given)
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
