"""Do intervals hold the truth when the runs stop because the interval is narrow enough?

    OMP_NUM_THREADS=1 python -m benchmarks.coverage_autopilot [--law symmetric] [--grid demo] \
        [--noise 0.003] [--factor 0.5] [--studies 200] [--table]

Each study is one model of a grid of `benchmarks.coverage_isoflop`. As `sweeps autopilot` does, it
is fitted by approach 3; where the half width of a is above the target, the runs that `suggest`
names (three a round, of the points' own sizes and budgets) are drawn and added, until `decide` says
stop. The target is `--factor` times the half width that the grid has on average at the start.
*Held at first* is the share of intervals with the truth before anything was added, *held* at the
stop; *fixed* is that of studies which have grown to the same number of runs on average without
looking. A study that has not stopped after `MOST` runs counts as it is. 500 studies tell a share of
95 % to a point.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.design.law import law_of
from analysis.design.suggest import repeats, suggest
from analysis.errors import AnalysisError
from analysis.fits.parametric.caution import vanished
from analysis.fits.parametric.laws import Chinchilla
from analysis.fits.parametric.optimum import fit_law
from analysis.fits.parametric.profile import judged
from analysis.fits.parametric.solver import Problem
from analysis.fits.resample import group_points, intervals
from analysis.parallel import spread
from benchmarks.coverage_isoflop import GRIDS, LAWS, MODELS, Grid, Law, draw
from ledger.autopilot import LAUNCH, Known
from sweeps.autopilot.decide import Candidate, Until, decide

RESAMPLES = 300
RUNS = 3  # a round, as `autopilot` has it
MOST = 120  # runs that are added
MODEL = MODELS[1]
HOURS = 1e30  # of --gpu-hours: never short
CELLS = (
    *(("symmetric", grid, 0.003, 0.8) for grid in ("table 9", "demo", "seven")),
    ("symmetric", "demo", 0.01, 0.8),
    *((law, "demo", 0.003, 0.8) for law in ("gemstones", "sparse")),
    *(("symmetric", grid, 0.003, 0.5) for grid in ("table 9", "demo", "seven")),
)
SHOWN = ("held at first", "held", "fixed", "bias", "added", "rounds", "stopped")


@dataclass(frozen=True)
class Ended:
    """A study at its stop."""

    first: Known
    last: Known
    added: int
    rounds: int
    stopped: bool


def known(rows: pd.DataFrame, seed: int) -> Known:
    """a with its interval, as `fit` says it; without one where the points do not identify it."""
    fit = fit_law(Problem(Chinchilla.of(rows), np.log(rows["loss"].to_numpy(float))))
    seen = judged(fit)
    ends = intervals(fit, group_points(rows, "auto"), RESAMPLES, seed).of["a"]
    if ends is None or vanished(fit) or (seen is not None and not seen.identified):
        return Known(model=MODEL, value=fit.values["a"])
    return Known(model=MODEL, value=fit.values["a"], low=ends[0], high=ends[1])


def fly(rows: pd.DataFrame, law: Law, noise: float, target: float, seed: int) -> Ended:
    """Rounds until one stops."""
    rng = np.random.default_rng((seed, 1))
    until, number = Until("a", target), 1
    first = now = known(rows, seed)
    begun = len(rows)
    while len(rows) < begun + MOST:
        decision = decide([now], _suggested(rows), until, HOURS)
        if decision.action != LAUNCH:
            return Ended(first, now, len(rows) - begun, number, True)
        rows = pd.concat([rows, _drawn(rng, decision.runs, law, noise)], ignore_index=True)
        now = known(rows, seed)
        number += 1
    return Ended(first, now, len(rows) - begun, number, False)


def _suggested(rows: pd.DataFrame) -> list[Candidate]:
    try:
        done = suggest(law_of(rows, MODEL), rows, repeats(rows, {}, ""), RUNS)
    except AnalysisError:
        return []
    return [Candidate(MODEL, run.size, run.budget, 1.0, run.after) for run in done.runs]


def _drawn(
    rng: np.random.Generator, runs: tuple[Candidate, ...], law: Law, noise: float
) -> pd.DataFrame:
    params = np.array([float(run.size) for run in runs])
    budget = np.array([run.budget for run in runs])
    return study_of(rng, law, params, budget, noise)


def study_of(
    rng: np.random.Generator, law: Law, params: np.ndarray, budget: np.ndarray, noise: float
) -> pd.DataFrame:
    """Runs of these sizes and FLOPs; a size is named by its parameters."""
    tokens = budget / (6 * params)
    loss = law.loss(params, tokens) * np.exp(noise * rng.standard_normal(len(params)))
    told = {"params": params, "tokens": tokens, "budget": budget, "loss": loss}
    same = {"model": MODEL, "trunk": None, "seed": np.nan, "run_id": None, "label": None}
    return pd.DataFrame(told).assign(**same, size=[repr(float(p)) for p in params])


def referee(law: Law, grid: Grid, noise: float, factor: float, studies: int) -> dict[str, float]:
    """Shares over the studies."""
    grid_rows = draw(np.random.default_rng(0), law, grid, 0.0, 0.0)
    clean = grid_rows[grid_rows["model"] == MODEL]
    params, budget = clean["params"].to_numpy(float), clean["budget"].to_numpy(float)

    def begin(seed: int, times: np.ndarray | int = 1) -> pd.DataFrame:
        rng = np.random.default_rng((seed, 0))
        return study_of(rng, law, np.repeat(params, times), np.repeat(budget, times), noise)

    at_first = spread(lambda seed: known(begin(seed), seed).half_width, range(min(studies, 60)))
    target = factor * float(np.median([half for half in at_first if half is not None]))
    ended = spread(lambda seed: fly(begin(seed), law, noise, target, seed), range(studies))
    added = float(np.mean([one.added for one in ended]))
    whole, rest = divmod(round(added), len(params))
    times = 1 + whole + (np.arange(len(params)) < rest)
    fixed = spread(lambda seed: known(begin(seed, times), seed), range(studies))
    last = [one.last for one in ended]
    return {
        "held at first": _held([one.first for one in ended], law),
        "held": _held(last, law),
        "fixed": _held(fixed, law),
        "bias": float(np.mean([(one.value or np.nan) - law.a for one in last])),
        "target": target,
        "added": added,
        "rounds": float(np.mean([one.rounds for one in ended])),
        "stopped": float(np.mean([one.stopped for one in ended])),
    }


def _held(found: list[Known], law: Law) -> float:
    told = [one.low <= law.a <= one.high for one in found if one.low is not None and one.high]
    return float(np.mean(told)) if told else float("nan")


def table(studies: int) -> str:
    """The table of docs/coverage.md."""
    lines = ["| law | grid | noise | target | " + " | ".join(SHOWN) + " |"]
    lines.append("| --- " * (4 + len(SHOWN)) + "|")
    for law, grid, noise, factor in CELLS:
        found = referee(LAWS[law], GRIDS[grid], noise, factor, studies)
        told = [f"{found[name]:+.3f}" if name == "bias" else f"{found[name]:.3f}" for name in SHOWN]
        lines.append(f"| {law} | {grid} | {noise:g} | {found['target']:.4f} | {' | '.join(told)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--law", choices=LAWS, default="symmetric")
    parser.add_argument("--grid", choices=GRIDS, default="demo")
    parser.add_argument("--noise", type=float, default=0.003)
    parser.add_argument(
        "--factor", type=float, default=0.5, help="target over the first half width"
    )
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--table", action="store_true", help="every cell of docs/coverage.md")
    asked = parser.parse_args()
    if asked.table:
        print(table(asked.studies))
        return
    found = referee(LAWS[asked.law], GRIDS[asked.grid], asked.noise, asked.factor, asked.studies)
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
