"""Plans and studies as tables with units, and numbers as people write them."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from sweeps.plan import Plan, Run

SHOWN = 60  # rows of a printed plan


def count(value: float) -> str:
    """1.23K, 4.56M, 7.89B, 1.01T."""
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


def plan_table(plan: Plan) -> Table:
    """A row for each run: shape, tokens, FLOPs under each convention, cost, state."""
    unit = "core-hours" if plan.gpu == "cpu" else f"{plan.gpu} GPU-hours"
    table = Table(title=f"study {plan.study}: {len(plan.runs)} runs", title_justify="left")
    table.add_column("run", no_wrap=True)
    for heading in (
        "layers\nunique/eff.",
        "params\nnon-emb.",
        "params\ntotal",
        "tokens",
        "steps\n(warm-up)",
        "FLOPs\npaper",
        "FLOPs\nexact",
        "FLOPs\n6nd",
        unit.replace(" ", "\n", 1),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for run in plan.runs[:SHOWN]:
        table.add_row(*_cells(run))
    return table


def _cells(run: Run) -> list[str]:
    row = run.row()
    flops = row["flops"]
    return [
        row["run_id"],
        f"{row['unique_layers']}/{row['effective_layers']}",
        count(row["n_params_nonembedding"]),
        count(row["n_params"]),
        count(row["tokens"]),
        f"{row['steps']} ({row['warmup_steps']})",
        f"{flops['paper']:.2e}",
        f"{flops['exact']:.2e}",
        f"{flops['6nd']:.2e}",
        f"{run.gpu_hours:.3g}",
        row["status"],
    ]


def totals_text(plan: Plan) -> str:
    """What the study costs, what sharing trunks saves, and what is left."""
    totals = plan.totals()
    unit = "core-hours" if plan.gpu == "cpu" else f"{plan.gpu} GPU-hours"
    shared, alone = totals["with_trunk_sharing"], totals["without_trunk_sharing"]
    left = totals["remaining"]
    origin = f"at an assumed MFU of {100 * plan.assumed_mfu:g} %"
    if plan.measured:
        origin = (
            f"{plan.measured} of {len(plan.runs)} runs priced at a measured speed, others " + origin
        )
    lines = [f"{totals['runs']} runs: {alone['gpu_hours']:,.3g} {unit} from scratch each; {origin}"]
    if totals["trunks"]:
        lines.append(
            f"{totals['trunks']} trunks are shared by their budgets and trained once: "
            f"{shared['gpu_hours']:,.3g} {unit} ({shared['exact_flops']:.3g} exact FLOPs)"
        )
    if totals["done"]:
        lines.append(f"{totals['done']} done; {left['runs']} left, {left['gpu_hours']:,.3g} {unit}")
    return "\n".join(lines)


def print_plan(plan: Plan, console: Console | None = None) -> None:
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(plan_table(plan))
    if len(plan.runs) > SHOWN:
        more = len(plan.runs) - SHOWN
        console.print(f"... and {more} more: launch.plan_file=plan.json writes them all")
    console.print(totals_text(plan), highlight=False)


def share(part: Any, whole: Any) -> str:
    """A share in percent, or a dash where it is not known."""
    if not part or not whole:
        return "-"
    return f"{100 * float(part) / float(whole):.0f}%"
