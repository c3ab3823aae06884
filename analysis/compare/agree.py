"""Do the conclusions survive? Three approaches, every FLOP convention, both counts of parameters.

A *case* is one convention and one count. Budgets are equal under the convention that they were
set in; under another one the runs of a budget have spent different compute. Each loss is then moved
along its own size's curve (straight in log loss and log compute) to the geometric mean of what all
runs of that budget have spent, so that every case compares at equal compute.

A *conclusion* is a question with the same form in every case: who leads at the largest budget,
whose exponent is larger, do parameters grow faster than tokens. Many questions are asked, so an
answer is *decided* where its p value stays below 0.05 with all questions of its case together
(Holm). A conclusion `holds` where every case gives the same answer and decides it, `leans` where
all point the same way but not every case decides, and `changes` where cases point different ways.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import pandas as pd

from analysis.compare.equal_compute import LEVEL, compare
from analysis.errors import AnalysisError
from analysis.fits import bootstrap
from analysis.fits.isoflop import IsoflopResult, fit_isoflop
from analysis.points.series import ordered
from analysis.points.table import curve_of
from analysis.report.fits import APPROACHES, Exponent, exponents

OPEN_EXPONENT = 0.5  # above it parameters grow faster than tokens


@dataclass(frozen=True)
class Answer:
    """What one case says: the answer that the estimate gives, and whether it is decided.

    None where the case gives no estimate, and no p value where it has no interval.
    """

    leans: str | None
    decided: bool = False
    p_value: float | None = field(default=None, compare=False)  # of the other answer, alone
    adjusted_p: float | None = field(default=None, compare=False)  # with all of its case


@dataclass(frozen=True)
class Case:
    """All fits under one convention and one count of parameters.

    `moved` is the largest factor by which compute was moved to make the runs of a budget equal.
    """

    convention: str
    params: str
    exponents: tuple[Exponent, ...]
    answers: dict[str, Answer]
    moved: float
    left_out: int

    @property
    def name(self) -> str:
        """`exact, total`: as columns are titled."""
        return f"{self.convention}, {self.params}"


@dataclass(frozen=True)
class Spread:
    """How far the approaches are apart for one model in one case; None with fewer than two."""

    model: str
    exponent: float | None  # largest pairwise difference in a
    n_opt: float | None  # largest factor between their N_opt at the largest budget


@dataclass(frozen=True)
class Conclusion:
    """A question, its answer in every case, and whether it survives."""

    question: str
    answers: dict[str, Answer]
    survives: str  # holds, leans, changes or unknown
    answer: str | None


def make_case(
    table: pd.DataFrame,
    convention: str,
    params: str,
    spent: Mapping[str, float] | None,
    *,
    resamples: int,
    seed: int,
) -> Case:
    """Fit one case. `table` needs the column trunk; `spent` is FLOPs by run id under `convention`,
    None where the budgets are of that convention already."""
    moved, left_out = 1.0, 0
    if spent is not None:
        before = len(table)
        table, moved = at_equal_compute(table, spent)
        left_out = before - len(table)
    result = fit_isoflop(table, resamples=resamples, seed=seed)
    found = tuple(exponents(table, result))
    answers = _leaders(result)
    for approach in APPROACHES:
        own = tuple(e for e in found if e.approach == approach)
        degrees = result.noise.degrees_of_freedom if approach == 2 else np.inf
        answers |= {**_orders(own, degrees), **_growth(own, degrees)}
    answers = _together(answers)
    return Case(convention, params, found, answers, moved, left_out)


def at_equal_compute(table: pd.DataFrame, spent: Mapping[str, float]) -> tuple[pd.DataFrame, float]:
    """The runs of each budget moved to one compute under another convention.

    Loss follows the size's own curve through its budgets, its end segments extrapolated; tokens are
    proportional to compute at one size. Sizes with one budget have no curve and are left out.
    Returns the table, its budgets the common computes, and the largest factor moved. Raises
    AnalysisError where nothing is left.
    """
    log_spent = table["run_id"].map(spent).astype(float).map(np.log)
    target = log_spent.groupby(table["budget"]).transform("mean")
    table = table.assign(log_spent=log_spent, target=target)
    parts = []
    for _, rows in table.groupby([curve_of(table), "params", "seed"], dropna=False, sort=False):
        rows = rows.sort_values("log_spent")
        if rows["log_spent"].nunique() < 2:
            continue
        shift = rows["target"] - rows["log_spent"]
        log_loss = _drawn_on(
            rows["target"], rows["log_spent"], rows["loss"].astype(float).map(np.log)
        )
        tokens = rows["tokens"] * np.exp(shift)
        parts.append(rows.assign(loss=np.exp(log_loss), tokens=tokens, shift=shift.abs()))
    if not parts:
        raise AnalysisError(
            "No size has two budgets, so no loss can be moved to equal compute under another "
            "convention: train more budgets, or ask for the points' own convention only."
        )
    found = pd.concat(parts, ignore_index=True)
    moved = float(np.exp(found["shift"].max()))
    found = found.assign(budget=np.exp(found["target"]))
    return found.drop(columns=["log_spent", "target", "shift"]), moved


def _drawn_on(at: pd.Series, x: pd.Series, y: pd.Series) -> np.ndarray:
    """Straight lines between points, the first and last extrapolated."""
    known, heights = x.to_numpy(float), y.to_numpy(float)
    wanted = at.to_numpy(float)
    segment = np.clip(np.searchsorted(known, wanted) - 1, 0, len(known) - 2)
    slope = np.diff(heights) / np.diff(known)
    return np.asarray(heights[segment] + slope[segment] * (wanted - known[segment]))


def _together(answers: dict[str, Answer]) -> dict[str, Answer]:
    """Decide all questions together (Holm)."""
    known = {question: a.p_value for question, a in answers.items() if a.p_value is not None}
    adjusted = dict(zip(known, bootstrap.holm(list(known.values())), strict=True))
    return answers | {
        question: replace(answers[question], adjusted_p=p, decided=p < LEVEL)
        for question, p in adjusted.items()
    }


def _leaders(result: IsoflopResult) -> dict[str, Answer]:
    """Who has the lower best loss at the largest budget, for each pair of models."""
    answers = {}
    largest = max(m.budget for frontier in result.models.values() for m in frontier.minima)
    for base, other in combinations(ordered(list(result.models)), 2):
        question = f"leads at the largest budget: {base} or {other}"
        answers[question] = Answer(None)
        for row in compare(result, base).comparisons if _share_budgets(result, base) else ():
            if row.model == other and np.isclose(row.budget, largest):
                answers[question] = Answer(base if row.gap > 0 else other, p_value=row.p_value)
    return answers


def _share_budgets(result: IsoflopResult, base: str) -> bool:
    own = {m.budget for m in result.models[base].minima}
    others = (f for name, f in result.models.items() if name != base)
    return any(m.budget in own for frontier in others for m in frontier.minima)


def _orders(found: tuple[Exponent, ...], degrees_of_freedom: float) -> dict[str, Answer]:
    """Whose optimal size grows faster with compute, for each pair of models of one approach."""
    answers = {}
    for left, right in combinations(found, 2):
        question = f"larger a (approach {left.approach}): {left.model} or {right.model}"
        if left.a is None or right.a is None:
            answers[question] = Answer(None)
            continue
        low, high = (left, right) if right.a > left.a else (right, left)
        reaches = [_reach(low, 1), _reach(high, 0)]
        known = [reach for reach in reaches if reach is not None]
        distance = abs(right.a - left.a)
        p = _p(distance, np.linalg.norm(known) if len(known) == 2 else None, degrees_of_freedom)
        answers[question] = Answer(high.model, p_value=p)
    return answers


def _growth(found: tuple[Exponent, ...], degrees_of_freedom: float) -> dict[str, Answer]:
    """Whether parameters or tokens grow faster with compute."""
    answers = {}
    for e in found:
        question = f"grows faster (approach {e.approach}): N or D of {e.model}"
        answers[question] = Answer(None)
        if e.a is not None:
            above = e.a > OPEN_EXPONENT
            p = _p(abs(e.a - OPEN_EXPONENT), _reach(e, 0 if above else 1), degrees_of_freedom)
            answers[question] = Answer("N" if above else "D", p_value=p)
    return answers


def _reach(found: Exponent, end: int) -> float | None:
    """From the exponent to the lower (0) or upper (1) end of its interval."""
    if found.a is None or found.a_interval is None:
        return None
    return abs(found.a_interval[end] - found.a)


def _p(distance: float, reach: float | np.floating | None, degrees: float) -> float | None:
    if reach is None:
        return None
    if reach == 0:
        return float(distance == 0)
    return bootstrap.p_of_reach(distance, float(reach), degrees)


def spreads(case: Case) -> list[Spread]:
    """For each model, how far the approaches are apart."""
    return [
        Spread(
            model,
            _widest([e.a for e in case.exponents if e.model == model]),
            _factor([e.n_opt for e in case.exponents if e.model == model]),
        )
        for model in dict.fromkeys(e.model for e in case.exponents)
    ]


def _widest(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if len(known) > 1 else None


def _factor(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) / min(known) if len(known) > 1 else None


def conclusions(cases: list[Case]) -> list[Conclusion]:
    """Every question with its answers, those that hold first."""
    found = []
    for question in dict.fromkeys(q for case in cases for q in case.answers):
        answers = {case.name: case.answers.get(question, Answer(None)) for case in cases}
        found.append(Conclusion(question, answers, *_survives(list(answers.values()))))
    order = ("holds", "leans", "changes", "unknown")
    return sorted(found, key=lambda conclusion: order.index(conclusion.survives))


def _survives(answers: list[Answer]) -> tuple[str, str | None]:
    sides = {answer.leans for answer in answers}
    if None in sides:
        return "unknown", None
    if len(sides) > 1:
        return "changes", None
    return ("holds" if all(a.decided for a in answers) else "leans"), answers[0].leans
