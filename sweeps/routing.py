"""Where the routed runs of a study send their tokens, as a table of what `result.json` holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from ledger.result import Result
from sweeps.terminal import plain_console

SHOWN = 24  # rows that are printed


def print_routing(results: Iterable[Result | None], console: Console) -> None:
    """A row for each routed run that is done; nothing where there is none."""
    routed = [(r.run_id, r.routing) for r in results if r and r.routing]
    if not routed:
        return
    table = Table(title="routing on held-out text (causal rule)", title_justify="left")
    table.add_column("run", no_wrap=True)
    for heading in (
        "recursions\nper token",
        "share of tokens\nby last recursion, %",
        "sampling\naccuracy, %",
        "MaxVio",
        "entropy\n(nats)",
        "dead\ntokens, %",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for run_id, routing in routed[:SHOWN]:
        table.add_row(run_id, *_cells(routing))
    if not console.is_terminal:
        console = plain_console(file=console.file, width=140)
    console.print(table)
    if len(routed) > SHOWN:
        console.print(f"... and {len(routed) - SHOWN} more, in their result.json", highlight=False)


def _cells(routing: dict[str, Any]) -> list[str]:
    accuracy = [value for value in routing["sampling_accuracy"] or [] if value is not None]
    return [
        f"{routing['mean_depth']:.2f}",
        percent(routing["depth_share"]),
        percent(accuracy) or "-",
        f"{routing['max_violation']:.3f}",
        f"{routing['entropy']:.3f}",
        percent([routing["dead_token_ratio"]]),
    ]


def percent(shares: Iterable[float]) -> str:
    """34.1 33.0 32.9"""
    return " ".join(f"{100 * share:.1f}" for share in shares)
