"""Who wins at equal compute, in sentences, with what the sentences rest on and do not show."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from analysis.compare import device_time, mistuning, peak_memory, verdict
from analysis.compare.equal_compute import Compared, Comparison, compare
from analysis.compare.reaching import best_loss
from analysis.errors import AnalysisError
from analysis.fits.isoflop import IsoflopResult
from analysis.formatting import compute, count, listing
from analysis.points.table import PointSet, curve_of
from analysis.report.records import Record, bits_a_nat, memories, speeds
from ledger.result import BYTE_KEYS

BASELINE = "vanilla"
TOLD = {
    "ahead": "is ahead of {base}",
    "behind": "is behind {base}",
    "lower": "has a lower loss than {base}, with no interval to tell it from noise,",
    "higher": "has a higher loss than {base}, with no interval to tell it from noise,",
    "open": "cannot be told apart from {base}",
}
VERBS = {
    "ahead": "is ahead",
    "behind": "is behind",
    "lower": "has the lower loss",
    "higher": "has the higher loss",
}


@dataclass(frozen=True)
class AtBudget:
    """The comparison at one budget: a headline, and a line for each model against the baseline."""

    budget: str
    headline: str
    lines: list[str]


@dataclass(frozen=True)
class Said:
    """The comparison in words; `refusal` where there is nothing to compare."""

    baseline: str
    summary: str
    budgets: list[AtBudget]
    limits: list[str]
    device_time: list[str] = field(default_factory=list)  # a line for each comparison at it
    memory: list[str] = field(default_factory=list)  # the same at equal peak memory
    turned: list[str] = field(default_factory=list)  # where another model leads at one of them
    refusal: str = ""


def say(
    result: IsoflopResult,
    points: PointSet,
    records: Mapping[str, Record],
    recipe: Path | None = None,
) -> Said:
    """Compare every model with vanilla, or with the first model where there is no vanilla. `recipe`
    judges the runs' own (`analysis.compare.mistuning`); raises AnalysisError where it is none."""
    names = sorted(result.models)
    baseline = BASELINE if BASELINE in names else names[0]
    try:
        done = compare(result, baseline)
    except AnalysisError as error:
        return Said(baseline, "", [], [], refusal=str(error))
    budgets = sorted({row.budget for row in done.comparisons})
    unit = verdict.unit(points)
    bits = None if points.loss in BYTE_KEYS else bits_a_nat(records.values())
    tuning = mistuning.tuning_of(done, result, points.table, recipe, points.params)
    told = [_at_budget(budget, done, result, unit, bits, tuning) for budget in reversed(budgets)]
    timed = device_time.at_equal_time(done, result, points.table, speeds(records))
    within = peak_memory.at_equal_memory(done, result, points.table, memories(records))
    turned = [device_time.turned(timed), peak_memory.turned(within)]
    return Said(
        baseline,
        f"{_summary(done, budgets)} {_recipes(tuning, unit)}",
        told,
        [*_limits(done, points, records), *map(str, tuning.warnings)],
        device_time.lines(timed, baseline),
        peak_memory.lines(within, baseline),
        [line for line in turned if line],
    )


def _summary(done: Compared, budgets: list[float]) -> str:
    parts = []
    for model in dict.fromkeys(row.model for row in done.comparisons):
        rows = [row for row in done.comparisons if row.model == model]
        said = []
        for side, told in TOLD.items():
            at = [compute(row.budget) for row in rows if _side(row) == side]
            if at:
                where = "at every budget" if len(at) == len(rows) > 1 else f"at {listing(at, 8)}"
                said.append(f"{told.format(base=done.baseline)} {where}")
        parts.append(f"{model} {', '.join(said)}")
    span = compute(budgets[0])
    if len(budgets) > 1:
        span = f"{span} to {compute(budgets[-1])}"
    return f"At equal compute ({span} FLOPs): {'; '.join(parts)}."


def _recipes(tuning: mistuning.Tuning, unit: str) -> str:
    most = [one.explains_at_most for one in tuning.comparisons]
    known = [value for value in most if value is not None]
    if not known:
        return "Untuned: how much of that is the models' recipes is not known."
    said = f"Mistuning can explain at most {max(known):.2g} {unit.split()[0]} of a gap"
    return said + ("." if len(known) == len(most) else ", where it is known.")


def _side(row: Comparison) -> str:
    """ahead or behind, lower or higher where no interval says by how much, or open."""
    ends = row.gap_interval
    if ends is not None and not row.decided:
        return "open"
    if ends is None and row.gap * row.measured_gap <= 0:
        return "open"
    if ends is None:
        return "lower" if row.gap < 0 else "higher"
    return "ahead" if row.gap < 0 else "behind"


def _at_budget(
    budget: float,
    done: Compared,
    result: IsoflopResult,
    unit: str,
    bits: float | None,
    tuning: mistuning.Tuning,
) -> AtBudget:
    best = {
        name: best_loss(minimum)
        for name, frontier in result.models.items()
        for minimum in frontier.minima
        if minimum.budget == budget
    }
    order = sorted(best, key=best.__getitem__)
    ranked = ", ".join(f"{name} {best[name]:.4f}" for name in order)
    rows = [row for row in done.comparisons if row.budget == budget]
    headline = f"Best losses ({unit}): {ranked}."
    if bits:
        in_bits = ", ".join(f"{name} {bits * best[name]:.4f}" for name in order)
        headline += f" In bits per byte: {in_bits}."
    lines = [_line(row, done.baseline, unit, tuning) for row in rows]
    return AtBudget(compute(budget), headline, lines)


def _line(row: Comparison, baseline: str, unit: str, tuning: mistuning.Tuning) -> str:
    recipe = mistuning.words(tuning.of(row), row.gap)
    clause = mistuning.words(tuning.of(row), row.gap, clause=True)
    size = f"{abs(row.gap):.4f} {unit}"
    ends = row.gap_interval
    told = f" (95 % interval of the gap {ends[0]:+.4f} to {ends[1]:+.4f})" if ends else ""
    side = _side(row)
    if side == "open" and ends and not ends[0] <= 0 <= ends[1]:
        return (
            f"{row.model} and {baseline} cannot be told apart: the gap is {row.gap:+.4f} and its "
            f"95 % interval, {ends[0]:+.4f} to {ends[1]:+.4f}, excludes zero only if no other "
            f"comparison is looked at (p {row.p_value:.3f} alone, {row.adjusted_p:.3f} with all "
            f"of them, Holm); {recipe}."
        )
    if side == "open" and ends:
        return (
            f"{row.model} and {baseline} cannot be told apart: the gap is {row.gap:+.4f} and its "
            f"95 % interval, {ends[0]:+.4f} to {ends[1]:+.4f}, holds zero; {recipe}."
        )
    if side == "open":
        return (
            f"{row.model} and {baseline} cannot be told apart: fitted losses differ by "
            f"{row.gap:+.4f}, the lowest measured ones by {row.measured_gap:+.4f}; {recipe}."
        )
    bound = ""
    if row.loss_is_bound or row.baseline_is_bound:
        whose = [row.model] * row.loss_is_bound + [baseline] * row.baseline_is_bound
        bound = (
            f"; of {' and '.join(whose)} only the lowest measured loss is known, no enclosed "
            "minimum, so there is no interval"
        )
    elif not ends:
        bound = "; there is no interval"
    said = f"{row.model} {VERBS[side]} by {size}{told}, {clause}{bound}."
    if row.multiplier is not None and math.isfinite(row.multiplier):
        span = row.multiplier_interval
        width = f" (95 % interval {span[0]:.3g} to {span[1]:.3g})" if span else ""
        beyond = ", extrapolated beyond the tested budgets" if row.extrapolated else ""
        said += (
            f" {baseline} gets to this loss with {row.multiplier:.3g} times the compute"
            f"{width}{beyond}."
        )
    return said


def _limits(done: Compared, points: PointSet, records: Mapping[str, Record]) -> list[str]:
    table = points.table
    said = []
    top, params = float(table["budget"].max()), table["params"]
    said.append(
        f"Nothing beyond {compute(top)} FLOPs: the models here have {count(params.min())} to "
        f"{count(params.max())} parameters, and an order may turn with scale."
    )
    seeds = table.groupby([curve_of(table), "params", "budget"])["seed"].nunique()
    if seeds.max() <= 1:
        said.append(
            "One run a point, no second seed: noise is judged by how far points lie from their "
            "parabola, which mixes it with the parabola's own misfit."
        )
    said += _conventions(points, records)
    if points.loss in ("topk", "bpb_topk"):
        said.append(
            "The top-k loss routes by the whole sequence and sees later tokens: it flatters routed "
            "models. The causal loss (--loss causal or bpb) is what a deployed model gets."
        )
    if "trunk" in table and table["trunk"].notna().any():
        said.append(
            "Budgets of a size share a training trunk. Intervals take 70 % of a run's noise at "
            "least as the trunk's, so they rest on fewer spare points than there are."
        )
    return [*said, *map(str, done.warnings)]


def _conventions(points: PointSet, records: Mapping[str, Record]) -> list[str]:
    """Equal under the budgets' convention is not equal under another: by how much."""
    ours = f"the {points.convention} convention" if points.convention else "the budgets' own count"
    if points.convention == "exact":
        return []
    table = points.table[points.table["budget"] == points.table["budget"].max()]
    exact: dict[str, list[float]] = {}
    for model, run_id in zip(curve_of(table), table["run_id"], strict=True):
        flops = records[run_id].flops.get("exact") if run_id in records else None
        if flops:
            exact.setdefault(str(model), []).append(flops)
    if len(exact) < 2:
        return [f"Equal compute means equal under {ours}; what the models cost in full may differ."]
    mean = {model: sum(values) / len(values) for model, values in exact.items()}
    shown = _shares(mean)
    return [
        f"Equal compute means equal under {ours}. Counted in full (exact: forward "
        f"and backward of every matmul), the runs at the largest budget spent on average {shown}."
    ]


def _shares(mean: Mapping[str, float]) -> str:
    base = BASELINE if BASELINE in mean else min(mean)
    others: Iterable[str] = (
        f"{model} {value / mean[base] - 1:+.0%}" for model, value in mean.items() if model != base
    )
    return f"{compute(mean[base])} FLOPs for {base}; {listing(others, 8)} of that"
