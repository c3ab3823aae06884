"""How far forecasts are off, and how often their bands hold, where the answer is known.

    OMP_NUM_THREADS=1 python -m benchmarks.forecast [--law symmetric] [--grid mid] [--noise 0.003] \
        [--studies 200] [--level 0.95] [--table] [--public]

Each simulated study is one model of a grid of `benchmarks.coverage_isoflop`; its largest budget is
left out, forecast from the others, and then measured by a fit of all points. `loss %` is the
relative error of the best loss against the law's own, `held` the share of intervals with what was
measured. Beside it naive ones: the last best loss, a power law through the raw minima, approach 3
alone; and `bound`, what the points let anybody know. `--public` leaves out the top of every longer
and longer part of the public isoFLOP sets (MOR_PUBLIC_POINTS names their folder), as measured by
all their points up to it.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.errors import AnalysisError
from analysis.fits.isoflop import ModelFrontier, fit_isoflop
from analysis.fits.parametric.frontier import Plane, best_log_loss, plane_of
from analysis.fits.parametric.laws import Chinchilla
from analysis.fits.parametric.optimum import fit_law
from analysis.fits.parametric.solver import Problem
from analysis.forecast.predict import Asked, predict
from benchmarks.coverage_isoflop import GRIDS, LAWS, MODELS, Grid, Law, budgets_of, draw

RESAMPLES = 300
PLANE: Plane = (-np.log(6), -1.0, 1.0)  # C = 6 N D
PUBLIC = ("porian_rw_tuned", "porian_rw_long_warmup")
CELLS = (
    *(("symmetric", grid, 0.003) for grid in ("demo", "seven", "mid", "wide", "drifting")),
    ("symmetric", "mid", 0.001),
    ("symmetric", "mid", 0.01),
    *((law, "mid", 0.003) for law in ("gemstones", "sparse", "soda", "llama3")),
)


def naive(frontier: ModelFrontier, rows: pd.DataFrame, budget: float) -> dict[str, float]:
    """Log losses by the last minimum, a power law through raw minima, and approach 3 alone."""
    minima = [(m.budget, (m.uncorrected or m).loss) for m in frontier.interior]
    x, y = np.log(np.array(minima, float)).T
    fit = fit_law(Problem(Chinchilla.of(rows), np.log(rows["loss"].to_numpy(float))))
    law = best_log_loss(fit.theta[None], plane_of(rows), np.log(budget))[0]
    line = np.polyval(np.polyfit(x, y, 1), np.log(budget))
    return {"last": float(y[-1]), "power law": float(line), "approach 3": float(law)}


def left_out(table: pd.DataFrame, level: float, seed: int) -> dict[str, float] | None:
    """The largest budget of one model's points, forecast from the others; None without minima."""
    top = float(table["budget"].max())
    fewer = table[table["budget"] < top].reset_index(drop=True)
    measured = next(iter(fit_isoflop(table, resamples=0).models.values())).minima[-1]
    try:
        done = predict(
            fewer, [Asked((top,))], level=level, baseline="", resamples=RESAMPLES, seed=seed
        )
    except AnalysisError:
        return None
    if measured.loss is None or measured.params is None:
        return None
    (best,) = done.best
    frontier = next(iter(fit_isoflop(fewer, resamples=0).models.values()))
    told = {
        "ours": np.log(best.loss / measured.loss),
        "by law": float(best.how == "law"),
        "N_opt": np.log(best.params / measured.params),
    }
    told |= {
        name: value - np.log(measured.loss) for name, value in naive(frontier, fewer, top).items()
    }
    for name, ends, value in (
        ("held", best.interval, measured.loss),
        ("N_opt held", best.params_interval, measured.params),
    ):
        if ends is not None:
            told[name] = float(ends[0] <= value <= ends[1])
    if best.interval is not None:
        told["width"] = np.log(best.interval[1] / best.interval[0])
    return told


def bound(law: Law, grid: Grid, noise: float) -> dict[str, float]:
    """The best that is possible where the form of the law is known: the Cramer-Rao bound of the
    best loss and size at the largest budget, with the scatter of what is measured there (a parabola
    through its sizes). Median error of the loss in percent, width of its 95 % interval in percent.
    """
    budgets, theta = budgets_of(grid), _theta(law)
    centres = law.optimum(budgets) * np.geomspace(grid.first, grid.last, grid.budgets)
    sizes = np.geomspace(1 / grid.reach, grid.reach, grid.sizes)
    params = (centres[:-1, None] * sizes).ravel()
    tokens = np.repeat(budgets[:-1], grid.sizes) / (6 * params)
    jacobian = Chinchilla(np.log(params), np.log(tokens)).expand(theta).jacobian[0].T
    covariance = noise**2 * np.linalg.inv(jacobian.T @ jacobian)
    top, step = np.log(budgets[-1]), 1e-5
    ends = [best_log_loss(theta + sign * step * np.eye(5), PLANE, top) for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    at = np.log(sizes * grid.last)  # from the best size
    design = np.stack([np.ones_like(at), at, at**2], axis=1)
    measured = noise**2 * np.linalg.inv(design.T @ design)[0, 0]
    error = float(np.sqrt(slope @ covariance @ slope + measured))
    return {"bound median %": 67.449 * error, "bound width": 2 * 1.959964 * error}


def _theta(law: Law) -> np.ndarray:
    """As the solver has it, (1, 5)."""
    return np.array([[np.log(law.A), law.alpha, np.log(law.B), law.beta, np.log(law.E)]])


WAYS = ("ours", "last", "power law", "approach 3")


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Median and largest error in percent by way, and shares."""
    found = pd.DataFrame(rows)
    told: dict[str, float] = {"studies": len(found)}
    for way in WAYS:
        off = 100 * found[way].abs()
        told |= {f"{way} median %": float(off.median()), f"{way} largest %": float(off.max())}
    shares = [name for name in ("held", "N_opt held", "by law", "width") if name in found]
    return told | {name: float(found[name].mean()) for name in shares}


def simulated(law: Law, grid: Grid, noise: float, studies: int, level: float) -> dict[str, float]:
    """Over studies of one model."""
    rng = np.random.default_rng(1)
    rows = []
    for seed in range(studies):
        table = draw(rng, law, grid, noise, 0.0)
        one = table[table["model"] == MODELS[1]].reset_index(drop=True)
        found = left_out(one.assign(size=None), level, seed)
        if found is not None:
            rows.append(found)
    return summary(rows) | bound(law, grid, noise)


def public(level: float) -> dict[str, dict[str, float]]:
    """By set, over every budget from the fourth on, forecast from those below it."""
    folder = Path(os.environ["MOR_PUBLIC_POINTS"])
    found = {}
    for name in PUBLIC:
        table = pd.read_csv(folder / f"{name}.csv").assign(
            model="model", curve=None, seed=np.nan, trunk=None, size=None
        )
        budgets = np.unique(table["budget"])
        parts = (table[table["budget"] <= top].reset_index(drop=True) for top in budgets[3:])
        rows = [row for part in parts if (row := left_out(part, level, 0))]
        found[name] = summary(rows)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--law", choices=LAWS, default="symmetric")
    parser.add_argument("--grid", choices=GRIDS, default="mid")
    parser.add_argument("--noise", type=float, default=0.003)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--level", type=float, default=0.95)
    parser.add_argument("--table", action="store_true", help="every cell of docs/forecast.md")
    parser.add_argument("--public", action="store_true")
    asked = parser.parse_args()
    if asked.public:
        found = public(asked.level)
    else:
        cells = CELLS if asked.table else ((asked.law, asked.grid, asked.noise),)
        found = {
            f"{law}, {grid}, {noise:g}": simulated(
                LAWS[law], GRIDS[grid], noise, asked.studies, asked.level
            )
            for law, grid, noise in cells
        }
    for name, row in found.items():
        print(json.dumps({"of": name, **{key: round(value, 4) for key, value in row.items()}}))


if __name__ == "__main__":
    main()
