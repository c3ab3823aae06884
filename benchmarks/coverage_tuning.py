"""How often `tune` and the tuning certificate hold the truth, where the truth is known.

    OMP_NUM_THREADS=1 python -m benchmarks.coverage_tuning \
        [--valley parabola] [--grid five] [--noise 0.003] [--shared 0] [--studies 200] [--table]

Each study sweeps the learning rate of two models around lr = 2 N^-0.4, from 0.8 of it, at three
sizes and two budgets (`five`: factors 1/4 to 4; `six`: 1/4 to 8). A run costs 5 % of its loss
times the valley's shape in x = log(lr / best): x^2 / 2 (`parabola`), e^x - 1 - x (`steep above`) or
e^-x - 1 + x (`steep below`), with log-normal noise of which `shared` is the trunk's: that of a size
and rate, at both budgets. `--table` prints the table of docs/coverage.md.

`optimum held` and `a held`: 95 % intervals of the best rates and of the law's power; `off`: mean
logarithm of the best rate over the true one; `at most held`: whether what *mistuning can explain at
most* is no less than the true difference in what two runs lose, each at 1/2, 1 or 2 times the best
rate.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis.compare.mistuning import certify
from analysis.errors import AnalysisError
from analysis.fits.tuning.cells import tune_table
from analysis.fits.tuning.fit import fit_tuning
from analysis.fits.tuning.recipe import recipe_of
from ledger.recipe import Recipe

POWER, HEIGHT, CENTRE, LOSS = 0.4, 0.05, 0.8, 3.0
MODELS = ("vanilla", "mor")
SIZES, BUDGETS = (1e6, 4e6, 16e6), (1e15, 4e15)
FACTORS = {"five": 2.0 ** np.arange(-2, 3), "six": 2.0 ** np.arange(-2, 4)}
VALLEYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "parabola": lambda x: 0.5 * x * x,
    "steep above": lambda x: np.exp(x) - 1 - x,
    "steep below": lambda x: np.exp(-x) - 1 + x,
}
ASKED = (0.5, 1.0, 2.0)  # times the best rate
RESAMPLES = 500


def best_rate(params: np.ndarray) -> np.ndarray:
    return np.asarray(2.0 * params**-POWER)


def study(
    model: str,
    valley: str,
    factors: np.ndarray,
    noise: float,
    shared: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The runs of one model in a tune study, as an analysis reads them."""
    grid = [(n, c, f) for n in SIZES for f in factors for c in BUDGETS]
    params, budget, factor = np.array(grid).T
    x = np.log(CENTRE * factor)
    trunk = np.arange(len(grid)) // len(BUDGETS)
    luck = np.sqrt(1 - shared) * rng.standard_normal(len(grid))
    luck += np.sqrt(shared) * rng.standard_normal(len(grid))[trunk]
    loss = LOSS * (1 + HEIGHT * VALLEYS[valley](x)) * np.exp(noise * luck)
    rates = best_rate(params) * np.exp(x)
    return pd.DataFrame(
        {
            **{"model": model, "curve": model, "size": params.astype(str)},
            **{"budget": budget, "params": params, "tokens": budget / (6 * params), "loss": loss},
            "run_id": [f"{model}-{number}" for number in range(len(grid))],
            "trunk": [f"{model}-{number}" for number in trunk] if shared else None,
            "settings": [{"train.lr": repr(float(rate))} for rate in rates],
        }
    )


def referee(
    valley: str, grid: str, noise: float, shared: float, studies: int
) -> dict[str, float | None]:
    """Shares of simulated studies, or of their optima, in which the truth is held."""
    held, off, powers, most, refused = [], [], [], [], 0
    for seed in range(studies):
        rng = np.random.default_rng(seed)
        own = [study(m, valley, FACTORS[grid], noise, shared, rng) for m in MODELS]
        cells = tune_table(pd.concat(own, ignore_index=True))
        try:
            tuned = fit_tuning(cells, RESAMPLES, seed)
        except AnalysisError:
            refused += len(MODELS) * len(SIZES) * len(BUDGETS)
            continue
        optima = [one for curve in tuned.curves.values() for one in curve.optima]
        enclosed = [one for one in optima if one.enclosed]
        refused += len(optima) - len(enclosed)
        for one in enclosed:
            assert one.intervals is not None
            assert one.values is not None
            [(low, high)], best = one.intervals, float(best_rate(np.array(one.cell.params)))
            held.append(low <= best <= high)
            off.append(np.log(one.values[0] / best))
        for law in [law for curve in tuned.curves.values() for law in curve.laws]:
            if law.a_interval is not None and law.uses[0]:
                powers.append(law.a_interval[0] <= POWER <= law.a_interval[1])
        recipe = recipe_of(tuned, cells, "tuned", "").recipe
        lost = [_lost(table, valley, recipe) for table in own]
        for (one, truth), (other, true_other) in itertools.product(*lost):
            if one is not None and other is not None:
                most.append(np.percentile(other - one, 97.5) >= true_other - truth)

    def share_of(values: list[bool]) -> float | None:
        return round(float(np.mean(values)), 3) if values else None

    return {
        "optimum held": share_of(held),
        "off": round(float(np.mean(off)), 3) if off else None,
        "a held": share_of(powers),
        "at most held": share_of(most),
        "refused": round(refused / (studies * len(MODELS) * len(SIZES) * len(BUDGETS)), 3),
    }


def _lost(
    table: pd.DataFrame, valley: str, recipe: Recipe | None
) -> list[tuple[np.ndarray | None, float]]:
    """Of runs at each of `ASKED`: what they lose as the certificate draws it, and truly (nats)."""
    found, run = [], table.iloc[len(table) // 2].to_dict()
    for factor in ASKED:
        truth = LOSS * HEIGHT * float(VALLEYS[valley](np.log(factor)))
        rate = float(best_rate(np.array(run["params"]))) * factor
        own = {**run, "loss": LOSS + truth, "settings": {"train.lr": repr(rate)}}
        found.append((certify(own, recipe).draws, truth))
    return found


CASES = [
    *(("parabola", "five", noise, 0.0) for noise in (0.001, 0.003, 0.01)),
    ("parabola", "five", 0.003, 0.9),
    *((valley, "five", 0.003, 0.0) for valley in ("steep above", "steep below")),
    *((valley, "six", 0.003, 0.0) for valley in VALLEYS),
    ("steep above", "five", 0.001, 0.0),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--valley", choices=VALLEYS, default="parabola")
    parser.add_argument("--grid", choices=FACTORS, default="five")
    parser.add_argument("--noise", type=float, default=0.003)
    parser.add_argument("--shared", type=float, default=0.0)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--table", action="store_true", help="all cases of docs/coverage.md")
    given = parser.parse_args()
    if not given.table:
        asked = (given.valley, given.grid, given.noise, given.shared, given.studies)
        print(json.dumps(referee(*asked), indent=1))
        return
    head = "| valley | grid | noise | trunk's share |"
    names = ("optimum held", "off", "a held", "at most held", "refused")
    print(head + " " + " | ".join(names) + " |\n" + "| --- " * (4 + len(names)) + "|")
    for valley, grid, noise, shared in CASES:
        found = referee(valley, grid, noise, shared, given.studies)
        numbers = " | ".join("-" if found[n] is None else f"{found[n]:.3f}" for n in names)
        print(f"| {valley} | {grid} | {100 * noise:g} % | {shared:g} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
