"""Plans and studies as tables with units, and numbers as people write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ledger.plan_file import hours_unit
from mor.model.components import layout
from sweeps.plan import Plan, Run
from sweeps.recipe import recipe_lines
from sweeps.telling import UNSET, telling_settings
from sweeps.terminal import plain_console

SHOWN = 60  # rows of a printed plan


def count(value: float) -> str:
    """1.23K, 4.56M, 7.89B, 1.01T, 1.01e16."""
    if abs(value) >= 1e15:
        return f"{value:.3g}".replace("e+", "e")
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:#.3g}".rstrip(".") + unit
    return f"{value:.0f}"


def duration(hours: float) -> str:
    """Hours as s, min, h or days."""
    seconds = hours * 3600
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if hours < 100:
        return f"{hours:.1f} h"
    return f"{hours / 24:,.1f} days"


@dataclass(frozen=True)
class _Column:
    heading: str
    cell: Callable[[Run], str]
    wanted: int  # 0: always there; the highest goes first where the window is narrow
    words: bool = False  # words stand to the left, numbers to the right


def plan_table(plan: Plan, width: int) -> Table:
    """A row for each run, as many columns as a width in characters holds; ids are never cut."""
    columns = _columns(plan)
    while True:
        table = _table(plan, columns)
        least = max(column.wanted for column in columns)
        if least == 0 or plain_console(width=1000).measure(table).maximum <= width:
            return table
        columns = [column for column in columns if column.wanted < least]


def _columns(plan: Plan) -> list[_Column]:
    unit = hours_unit(plan.gpu).replace(" ", "\n")
    named = any(run.config.label for run in plan.runs)
    variant = [_Column("variant", lambda run: run.config.label or "-", 0, True)] if named else []
    recipe = _recipe_columns(plan)
    others = [
        _Column("layers\nunique/eff.", _layers, 4),
        _Column("params\nnon-emb.", lambda run: count(run.cost.params.nonembedding), 0),
        _Column("params\ntotal", lambda run: count(run.cost.params.total), 5),
        _Column("tokens", lambda run: count(run.tokens), 0),
        _Column("steps\n(warm-up)", lambda run: f"{run.steps.total} ({run.steps.warmup})", 2),
        _Column("FLOPs\npaper", lambda run: f"{run.flops['paper']:.2e}", 3),
        _Column("FLOPs\nexact", lambda run: f"{run.flops['exact']:.2e}", 1),
        _Column("FLOPs\n6nd", lambda run: f"{run.flops['6nd']:.2e}", 6),
        _Column(unit, lambda run: f"{run.gpu_hours:.3g}" + "*" * run.measured, 0),
        _Column("state", lambda run: run.status, 0, True),
    ]
    telling = _telling_columns(plan, [*variant, *recipe], [*recipe, *others])
    return [*variant, _Column("run", lambda run: run.run_id, 0, True), *telling, *recipe, *others]


def _telling_columns(plan: Plan, told: list[_Column], headed: list[_Column]) -> list[_Column]:
    """What differs between runs whose ids differ in their hash alone, of those that are shown."""
    runs = plan.runs[:SHOWN]
    ids = [run.run_id.rpartition("-")[0] for run in runs]
    seen = [
        (one, *(column.cell(run) for column in told)) for one, run in zip(ids, runs, strict=True)
    ]
    taken = {word for column in headed for word in column.heading.split()}
    found = telling_settings([run.config for run in runs], seen, taken)
    return [_telling_column(runs, name, values) for name, values in found.items()]


def _telling_column(runs: list[Run], name: str, values: list[str]) -> _Column:
    by_run = dict(zip((run.run_id for run in runs), values, strict=True))
    words = not all(map(_is_number, values))
    return _Column(name, lambda run: by_run[run.run_id], 0, words)


def _recipe_columns(plan: Plan) -> list[_Column]:
    """Learning rate and batch, where a recipe gives them or runs differ in them."""
    trains = [run.config.train for run in plan.runs]
    chosen = any(train.recipe for train in trains)
    return [
        _Column(heading, cell, 0)
        for heading, cell, values in (
            ("lr", lambda run: f"{run.config.train.lr:g}", {t.lr for t in trains}),
            (
                "batch\n(seqs)",
                lambda run: f"{run.config.train.batch_size:,}",
                {t.batch_size for t in trains},
            ),
        )
        if chosen or len(values) > 1
    ]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == UNSET
    return True


def _layers(run: Run) -> str:
    depths = layout(run.config.model, run.config.size)
    return f"{depths.unique_layers}/{depths.effective_layers}"


def _table(plan: Plan, columns: list[_Column]) -> Table:
    title = f"study {plan.study}: {counted(len(plan.runs), 'run')}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.heading, justify="left" if column.words else "right", no_wrap=True)
    for run in plan.runs[:SHOWN]:
        table.add_row(*(column.cell(run) for column in columns))
    return table


def counted(number: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def totals_text(plan: Plan) -> str:
    """What the study costs, what sharing trunks saves, and what is left."""
    totals = plan.totals()
    unit = hours_unit(plan.gpu)
    shared, alone = totals["with_trunk_sharing"], totals["without_trunk_sharing"]
    left = totals["remaining"]
    origin = f"priced at an assumed MFU of {100 * plan.assumed_mfu:g} %"
    if any(run.measured for run in plan.runs):
        origin = f"* at the speed measured for its model and size, others {origin}"
    lines = [
        f"{counted(totals['runs'], 'run')}: {alone['gpu_hours']:,.3g} {unit} from scratch; {origin}"
    ]
    if totals["trunks"]:
        lines.append(
            f"{counted(totals['trunks'], 'trunk')}, shared by budgets and trained once: "
            f"{shared['gpu_hours']:,.3g} {unit} ({shared['exact_flops']:.3g} exact FLOPs)"
        )
    lines += recipe_lines(run.config for run in plan.runs)
    if plan.evaluations:
        names = ", ".join(dict.fromkeys(one.tasks.name for one in plan.evaluations))
        scored = totals["evaluations"]
        lines.append(
            f"{counted(scored['planned'], 'evaluation')} on {names}: {scored['remaining']} left, "
            f"about {scored['gpu_hours']:,.3g} {unit}"
        )
    if totals["done"] or totals["begun"]:
        lines.append(f"{totals['done']} done; {left['runs']} left, {left['gpu_hours']:,.3g} {unit}")
    return "\n".join(lines)


def print_plan(plan: Plan, console: Console | None = None) -> None:
    console = console or plain_console()
    if not console.is_terminal:
        console = plain_console(width=200)
    console.print(plan_table(plan, console.width))
    if len(plan.runs) > SHOWN:
        more = len(plan.runs) - SHOWN
        console.print(f"... and {more} more: launch.plan_file=plan.json writes them all")
    console.print(totals_text(plan), highlight=False)


def share(part: Any, whole: Any) -> str:
    """A share in percent, or a dash where it is not known."""
    if not part or not whole:
        return "-"
    return f"{100 * float(part) / float(whole):.0f}%"
