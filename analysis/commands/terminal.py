"""The fit as tables on a terminal."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.cautions import Caution
from analysis.compare import verdict
from analysis.fits.isoflop import IsoflopResult
from analysis.formatting import plural
from analysis.points.table import PointSet
from ledger.result import BYTE_KEYS

COLUMNS = (
    "Budget\n(FLOPs)",
    "N_opt\n(params)",
    "D_opt\n(tokens)",
    "Loss\n(nats/token)",
    "Minimum",
    "Points\nfitted",
)


def print_result(console: Console, result: IsoflopResult, points: PointSet) -> None:
    """A table of minima for each model, its exponents, its verdict and its warnings."""
    models = plural(len(result.models), "model")
    said = f"{plural(result.n_points, 'point')} of {models} from {points.source}"
    console.print(escape(said), highlight=False)
    in_bytes = points.loss in BYTE_KEYS
    labels = [
        verdict.budget_label(points),
        verdict.params_label(points),
        verdict.loss_label(points),
    ]
    console.print(escape("; ".join(labels)), highlight=False, style="dim")
    for warning in points.warnings:
        _warn(console, warning)
    columns = [c.replace("nats/token", "bits/byte") if in_bytes else c for c in COLUMNS]
    for name, frontier in result.models.items():
        table = Table(
            box=box.SIMPLE_HEAD, title=f"\n{escape(name)}", title_justify="left", title_style="bold"
        )
        for column in columns:
            table.add_column(column, justify="right")
        for minimum in frontier.minima:
            table.add_row(*verdict.minimum_cells(minimum))
        console.print(table)
        for symbol, law in (("N_opt", frontier.params_law), ("D_opt", frontier.tokens_law)):
            console.print(escape(verdict.law_text(symbol, law)), highlight=False)
        console.print(escape(verdict.correction_text(frontier)), highlight=False)
        console.print(escape(verdict.verdict(frontier)), highlight=False, soft_wrap=False)
        for warning in frontier.warnings:
            _warn(console, warning)


def _warn(console: Console, warning: Caution) -> None:
    console.print(f"[yellow]warning:[/yellow] {escape(warning.text)}", highlight=False)
