"""Which runs next: those that shrink the interval of the exponent most for what they cost.

The law of approach 3 through the points is taken as true with the noise of its residuals. A run
that is added adds its information (`analysis.design.law`); greedily, the candidate with the largest
fall of the expected half width of a per unit of cost is taken, until there are enough. A run that
is taken may be taken again with the next seed.

Cost is in hours of one device where a plan or the runs' own speed gives them
(`analysis.design.prices`), otherwise in FLOPs (6 N D).
What this leaves out: that budgets of a size share a trunk, and that a law may be the wrong one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.design.law import TrueLaw, half_width, information
from analysis.design.prices import MEASURED, Price
from analysis.errors import AnalysisError
from analysis.fits.parametric.laws import Floats
from analysis.points.table import curve_of

FLOPS = "FLOPs"


@dataclass(frozen=True)
class Suggestion:
    """One run; half widths (95 %) are of the exponent a, before and after it is added."""

    model: str
    size: str
    budget: float
    seed: int
    params: float
    tokens: float
    cost: float
    before: float
    after: float
    settings: str = ""  # of its curve, as the command line takes them
    measured: bool = False  # whether its cost is at a measured speed


@dataclass(frozen=True)
class Suggested:
    """The suggested runs, best first, and the law and noise that they rest on."""

    model: str
    exponent: float
    noise: float
    unit: str
    points: int
    runs: tuple[Suggestion, ...]

    @property
    def cost(self) -> float:
        """Of all runs."""
        return sum(run.cost for run in self.runs)


def suggest(law: TrueLaw, points: pd.DataFrame, candidates: pd.DataFrame, runs: int) -> Suggested:
    """The `runs` best of `candidates`: columns size, budget, seed, params, tokens, cost, unit and
    whether it is measured; a candidate stands for all seeds from its own on. `points` are the
    finished runs of one model.

    Raises AnalysisError where the points leave the law open, or there are no candidates.
    """
    if candidates.empty:
        raise AnalysisError(
            f"There is no run to suggest for {law.source}: give --candidates with a plan that "
            "holds other sizes, budgets or seeds."
        )
    noise = law.noise or 0.0
    if noise <= 0:
        raise AnalysisError(
            f"{law.source} meets its law without any residual, so there is no noise to design "
            "against: give measured points."
        )
    held = information(law, *_shape(points), noise).sum(axis=0)
    adds = information(law, *_shape(candidates), noise)
    before = half_width(law, held)
    if not np.isfinite(before):
        raise AnalysisError(
            f"{law.source}: the points do not identify the law's five parameters, so no run "
            "can be ranked yet: add a budget and sizes on both sides of the minimum first."
        )
    cost = candidates["cost"].to_numpy(float)
    seeds = candidates["seed"].to_numpy(int).copy()
    chosen: list[Suggestion] = []
    for _ in range(runs):
        after = np.array([half_width(law, held + add) for add in adds])
        best = int(np.argmax((before - after) / cost))
        row = candidates.iloc[best]
        chosen.append(
            Suggestion(
                str(row["model"]), str(row["size"]), float(row["budget"]), int(seeds[best]),
                float(row["params"]), float(row["tokens"]), float(cost[best]), before,
                float(after[best]), str(row.get("overrides", "")), bool(row["measured"]),
            )
        )  # fmt: skip
        held, before = held + adds[best], float(after[best])
        seeds[best] += 1
    a = law.beta / (law.alpha + law.beta)
    unit = str(candidates["unit"].iloc[0])
    model = str(curve_of(points).iloc[0])
    return Suggested(model, a, noise, unit, len(points), tuple(chosen))


def _text(value: object) -> str:
    """A cell, empty where the source does not have it."""
    return value if isinstance(value, str) else ""


def _shape(table: pd.DataFrame) -> tuple[Floats, Floats]:
    return table["params"].to_numpy(float), table["tokens"].to_numpy(float)


def repeats(points: pd.DataFrame, prices: Mapping[str, Price], unit: str) -> pd.DataFrame:
    """Candidates from the points themselves: each size at each budget again, with the next seed.

    `prices` are by run id, in `unit`; where some run has none, all cost their FLOPs.
    """
    known = points["run_id"].isin(list(prices)).all() and len(points) > 0
    rows = []
    for _, same in points.groupby(["size", "params", "budget"], dropna=False, sort=True):
        first = same.iloc[0]
        flops = 6 * first["params"] * first["tokens"]
        seeds = same["seed"].dropna()
        each = [prices[name] for name in same["run_id"]] if known else []
        rows.append(
            {
                "model": first["model"],
                "size": "" if pd.isna(first["size"]) else first["size"],
                "budget": first["budget"],
                "params": first["params"],
                "tokens": first["tokens"],
                "seed": int(seeds.max()) + 1 if len(seeds) else 1,
                "overrides": _text(first.get("overrides")),
                "cost": np.mean([price.hours for price in each]) if known else flops,
                "unit": unit if known else FLOPS,
                "measured": known and all(price.measured for price in each),
            }
        )
    return pd.DataFrame(rows)


def planned(plan: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Candidates from a plan (see `analysis.design.grid.plan_grid`): its runs of the points' model
    that are not among the points yet, at the plan's price."""
    first = points.iloc[0]
    mine = plan[plan["model"] == first["model"]]
    label = _text(first.get("label"))
    if label and "label" in mine:
        mine = mine[mine["label"] == label].assign(overrides=_text(first.get("overrides")))
    mine = mine[~mine["run_id"].isin(list(points["run_id"].dropna()))]
    mine = mine.assign(cost=mine["gpu_hours"], measured=mine["price"] == MEASURED)
    return mine.reset_index(drop=True)
