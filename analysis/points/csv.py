"""Points from a CSV file, with the line of each row.

A value is used as written, or the warnings say how it was read, or the file is refused.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.formatting import listing, plural
from analysis.points.budgets import check_units, group_achieved
from analysis.points.checks import usable
from analysis.points.csv_cells import Cells, read_cells
from analysis.points.losses import check_loss
from analysis.points.numbers import decimal_mark, number
from analysis.points.table import COLUMNS, MORE_NUMBERS, NUMBERS, Wanted, tidy

UNITS = {"loss": " (nats per token)", "budget": " (FLOPs)"}
NUMERIC = (*NUMBERS, *MORE_NUMBERS, "seed")
COUNTS = ("params", "tokens", "n_once", "n_rec")  # may be written as 30M
COMPUTE = ("params", "tokens", "budget")
BLANK = ("", "-", "nan", "na", "n/a", "none", "null")  # a cell without a value, in lower case
OURS = (*COLUMNS[:-1], *MORE_NUMBERS)
SCALED = re.compile(
    r"(?P<factor>[\d.]+(?:[eE][+-]?\d+)?)\s*\*\s*(?P<name>.+)"
    r"|(?P<function>10\^|ln(?=\(.+\)$))\(?(?P<of>.+?)\)?"
)


def read_csv(path: Path, wanted: Wanted | None = None) -> tuple[pd.DataFrame, list[Caution]]:
    """The points of a CSV with at least the wanted numbers; and warnings.

    Raises AnalysisError for a file or a column that is missing or cannot be read as numbers.
    """
    wanted = wanted or Wanted()
    if path.suffix.lower() != ".csv":
        raise AnalysisError(f"POINTS {str(path)!r} is not a .csv file: export the points as CSV.")
    cells = read_cells(path)
    found = _columns(cells, wanted, path)
    missing = [column for column in wanted.numbers if column not in found]
    if missing:
        raise AnalysisError(
            f"{path} has no column {listing(missing)} (it has {listing(cells.header, 12)}): "
            f"give {_told(wanted.numbers)}; where yours have other names, type --columns "
            f"{','.join(f'{name}=<yours>' for name in missing)}."
        )
    texts = {ours: [row[at] for row in cells.rows] for ours, (at, _) in found.items()}
    numbers, said = _numbers(
        texts, {ours: scale for ours, (_, scale) in found.items()}, cells, path
    )
    named = {ours: [text or None for text in texts[ours]] for ours in texts if ours not in numbers}
    lines = pd.Series([f"line {line}" for line in cells.lines], dtype=object)
    table = tidy(pd.DataFrame(named | numbers, index=lines.index), wanted.extra)
    table["source"] = [f"{path}, {line}" for line in lines]
    said += _named_models(table, path)
    # A budget that is there is used, also where it is not needed.
    checked = dict.fromkeys([*wanted.numbers, *(["budget"] if "budget" in found else [])])
    shown = pd.DataFrame({name: texts[name] for name in checked}, dtype=object)
    blank = shown.map(lambda text: text.casefold() in BLANK)
    blank[list(wanted.numbers)] = False
    kept, dropped = usable(table, lines, shown.replace("", "empty"), str(path), blank)
    at, scale = found["loss"]
    said += check_loss(kept, cells.header[at], scale == "ln", str(path))
    if set(COMPUTE) <= set(found):
        kept, more = _with_budgets(kept, wanted, str(path))
        dropped += more
    return kept, [*said, *dropped]


def _with_budgets(
    table: pd.DataFrame, wanted: Wanted, source: str
) -> tuple[pd.DataFrame, list[Caution]]:
    complete = table[(table[list(COMPUTE)] > 0).all(axis=1)]
    said = check_units(complete, source) if len(complete) else []
    table, grouped = group_achieved(table, source, needed="budget" in wanted.numbers)
    return table, said + grouped


def _told(columns: Sequence[str]) -> str:
    named = [f"{column}{UNITS.get(column, '')}" for column in columns]
    return f"{', '.join(named[:-1])} and {named[-1]}"


def _columns(cells: Cells, wanted: Wanted, path: Path) -> dict[str, tuple[int, str]]:
    """Where each of our columns stands, and its factor as typed ("" for none).

    A column that is asked for under another name replaces one that has the name already.
    """
    found = {}
    for ours, theirs in wanted.columns.items():
        scaled = None if theirs in cells.header else SCALED.fullmatch(theirs)
        name = (scaled["name"] or scaled["of"]).strip() if scaled else theirs
        at = _position(name, cells, path)
        if at is None:
            raise AnalysisError(
                f"--columns names {name}, which {path} does not have "
                f"(it has {listing(cells.header, 12)}): name a column that is there."
            )
        found[ours] = (at, (scaled["factor"] or scaled["function"]) if scaled else "")
    for ours in (*OURS, *wanted.extra):
        at = None if ours in found else _position(ours, cells, path)
        if at is not None:
            found[ours] = (at, "")
    return found


def _position(name: str, cells: Cells, path: Path) -> int | None:
    """Where a column stands: by its very name, else in whatever case."""
    exact = [at for at, held in enumerate(cells.header) if held == name]
    alike = [at for at, held in enumerate(cells.header) if held.casefold() == name.casefold()]
    if len(exact) > 1 or (len(alike) > 1 and name in OURS):
        names = ", ".join(repr(cells.header[at]) for at in alike)
        raise AnalysisError(
            f"{path} has the column {name} {len(alike)} times ({names}): leave one of them, or "
            "give them different names and choose with --columns."
        )
    if exact:
        return exact[0]
    return alike[0] if len(alike) == 1 else None


def _numbers(
    texts: dict[str, list[str]], scales: dict[str, str], cells: Cells, path: Path
) -> tuple[dict[str, list[float]], list[Caution]]:
    """The columns of numbers, NaN where a cell holds none; and how they were read."""
    numeric = [ours for ours in texts if ours in NUMERIC]
    others = [text for ours in numeric if ours != "loss" for text in texts[ours]]
    mark = decimal_mark(texts.get("loss", []), others, cells.separator, str(path))
    read = {
        ours: [_scaled(number(text, mark, ours in COUNTS), scales[ours]) for text in texts[ours]]
        for ours in numeric
    }
    if mark == ".":
        return read, []
    text = f"Numbers of {path} read with decimal commas, and points between groups of digits."
    return read, [Caution(Code.DECIMAL_COMMAS, text)]


def _scaled(value: float, scale: str) -> float:
    if scale == "ln":
        return math.log(value) if value > 0 else math.nan
    if scale != "10^":
        return value * float(scale) if scale else value
    try:
        return 10.0**value
    except OverflowError:
        return math.inf


def _named_models(table: pd.DataFrame, path: Path) -> list[Caution]:
    """Name the model of a file without any; say which names differ by their case alone.

    Raises AnalysisError where some rows have a model and some have not.
    """
    without = table["model"].isna()
    if without.any() and not without.all():
        lines = [source.rpartition(", line ")[2] for source in table["source"][without]]
        raise AnalysisError(
            f"{path} names a model in {plural(int((~without).sum()), 'row')} and none in "
            f"{int(without.sum())} (line {listing(lines)}): write the model in every row."
        )
    table["model"] = table["model"].fillna("model")
    spelt: dict[str, list[str]] = {}
    for name in dict.fromkeys(table["model"]):
        spelt.setdefault(name.casefold(), []).append(name)
    alike = [" and ".join(names) for names in spelt.values() if len(names) > 1]
    if not alike:
        return []
    text = f"Models of {path} that differ by upper and lower case alone are kept apart: "
    return [Caution(Code.NAMES_ALIKE, f"{text}{listing(alike)}.")]
