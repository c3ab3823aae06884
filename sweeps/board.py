"""A look at a study as text: a line for each run, as many columns as the window holds.

Ids are never cut. Where the window is narrow the columns that matter least go first.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.text import Text

from sweeps.tables import count, counted, duration, share
from sweeps.watch import OPEN, Cost, Look, Row

COLOURS = {
    "done": "green",
    "running": "cyan",
    "pending": "yellow",
    "preempted": "yellow",
    "planned": "dim",
    "finished": "green",
}
GAP = "  "
FIRST = ("running", "failed", "diverged", "preempted", "pending")  # where not all rows fit


@dataclass(frozen=True)
class _Column:
    heading: str
    cell: Callable[[Row], str]
    wanted: int  # 0: always there; the highest goes first where the window is narrow
    words: bool = False  # words stand to the left, numbers to the right


COLUMNS = (
    _Column("run or trunk segment", lambda row: row.name, 0, True),
    _Column("state", lambda row: row.state, 0, True),
    _Column("spent", lambda row: share(row.spent, row.target), 0),
    _Column("loss", lambda row: "-" if row.loss is None else f"{row.loss:.4f}", 1),
    _Column("bits/B", lambda row: f"{row.bits_per_byte:.3f}" if row.bits_per_byte else "-", 4),
    _Column("tok/s", lambda row: count(row.tokens_per_s) if row.tokens_per_s else "-", 2),
    _Column("ETA", lambda row: "-" if row.eta_hours is None else duration(row.eta_hours), 3),
    _Column("tries", lambda row: str(row.attempts) if row.attempts else "-", 5),
    _Column("hours", lambda row: _hours(row.device_hours), 6),
    _Column("MFU", lambda row: f"{100 * row.mfu:.0f}%" if row.mfu else "-", 7),
    _Column("node", lambda row: row.node or "-", 8, True),
    _Column("waits for", lambda row: row.reason or "-", 9, True),
)


def _hours(hours: float) -> str:
    if not hours:
        return "-"
    return f"{hours:,.2f}" if hours >= 0.01 else "<0.01"


def board(look: Look, width: int, height: int | None = None) -> Text:
    """The table, what is done, the ETA and the cost.

    `width` and `height` are the window's, in characters and lines; without a height every row is
    there.
    """
    rows = [*look.data, *look.segments, *look.rows, *look.evaluations]
    foot = [part for line in _foot(look) for part in _wrapped(line, width)]
    shown = _fitting(rows, height - len(foot) - 3) if height else rows
    text = Text(no_wrap=True, overflow="ignore")
    text.append(f"study {look.study}\n", style="bold")
    table = _columns(shown, width)
    columns = list(table)
    widths = [_width(column, cells) for column, cells in table.items()]
    text.append(_line([c.heading for c in columns], columns, widths) + "\n", style="dim")
    for row, *cells in zip(shown, *table.values(), strict=True):
        line = Text(_line(cells, columns, widths))
        line.stylize(COLOURS.get(row.state, "red"), widths[0] + 2, widths[0] + 2 + len(row.state))
        text.append_text(line)
        text.append("\n")
    if len(shown) < len(rows):
        text.append(f"... and {len(rows) - len(shown)} more\n", style="dim")
    text.append("\n".join(foot))
    return text


def _wrapped(line: str, width: int) -> list[str]:
    """A line in as many as the window needs: a live table cuts what is longer."""
    width = max(width, 40)
    return textwrap.wrap(
        line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _line(cells: list[str], columns: list[_Column], widths: list[int]) -> str:
    padded = [
        cell.ljust(width) if column.words else cell.rjust(width)
        for cell, column, width in zip(cells, columns, widths, strict=True)
    ]
    return GAP.join(padded).rstrip()


def _columns(rows: list[Row], width: int) -> dict[_Column, list[str]]:
    """The columns that fit, with their cells; those that would say nothing are left out."""
    table = {column: [column.cell(row) for row in rows] for column in COLUMNS}
    table = {c: cells for c, cells in table.items() if c.wanted == 0 or set(cells) - {"-"}}
    while True:
        widths = [_width(column, cells) for column, cells in table.items()]
        least = max(column.wanted for column in table)
        if least == 0 or sum(widths) + len(GAP) * (len(widths) - 1) <= width:
            return table
        table = {column: cells for column, cells in table.items() if column.wanted < least}


def _width(column: _Column, cells: list[str]) -> int:
    return max(len(column.heading), *map(len, cells), 0)


def _fitting(rows: list[Row], lines: int) -> list[Row]:
    """As many rows as there are lines, those where something happens first, in their order."""
    if len(rows) <= lines:
        return rows
    order = {state: i for i, state in enumerate(FIRST)}
    by_weight = sorted(range(len(rows)), key=lambda i: (order.get(rows[i].state, len(FIRST)), i))
    return [rows[i] for i in sorted(by_weight[: max(1, lines - 1)])]


def _foot(look: Look) -> list[str]:
    done = sum(row.state == "done" for row in look.rows)
    counts = ", ".join(f"{number} {state}" for state, number in look.counts().items())
    eta = "" if look.eta_hours is None else f"; ETA {duration(look.eta_hours)}"
    lines = [f"{done} of {len(look.rows)} runs done ({counts}){eta}", cost_text(look.cost)]
    if look.evaluations:
        states = Counter(row.state for row in look.evaluations)
        counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        lines.append(f"{counted(len(look.evaluations), 'evaluation')} not done ({counts})")
    return [*lines, *look.notes, *_next([*look.rows, *look.evaluations])]


def cost_text(cost: Cost) -> str:
    """Planned, corrected by the measured speeds, and held so far."""
    text = f"planned {cost.planned:,.3g} {cost.unit}"
    if cost.corrected is not None:
        part = "" if cost.measured == cost.shapes else f" ({cost.measured} of {cost.shapes} sizes)"
        text += f", at the measured speed{part} {cost.corrected:,.3g}"
    held = [
        f"{hours:,.3g} {unit}"
        for hours, unit in ((cost.gpu_hours, "GPU-hours"), (cost.core_hours, "core-hours"))
        if hours
    ]
    return f"{text}; so far {' and '.join(held) or '0'}"


def _next(rows: Iterable[Row]) -> list[str]:
    """What to type where something needs a hand."""
    stuck = [row for row in rows if row.state not in (*OPEN, "done")]
    if not stuck:
        return []
    return [f"python -m sweeps why {stuck[0].name}   says why it is {stuck[0].state}"]
