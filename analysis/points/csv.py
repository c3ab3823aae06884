"""Points from a CSV file, with the line of each row."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from analysis.cautions import Caution
from analysis.errors import AnalysisError
from analysis.formatting import listing
from analysis.points.checks import usable
from analysis.points.table import MORE_NUMBERS, NUMBERS, Wanted, tidy

UNITS = {"loss": " (nats per token)", "budget": " (FLOPs)"}


def read_csv(path: Path, wanted: Wanted | None = None) -> tuple[pd.DataFrame, list[Caution]]:
    """The points of a CSV with at least the wanted numbers; and warnings."""
    wanted = wanted or Wanted()
    if path.suffix.lower() != ".csv":
        raise AnalysisError(f"POINTS {str(path)!r} is not a .csv file: export the points as CSV.")
    try:
        # As text, so that a value that is not a number can be shown as it stands in the file; with
        # blank lines kept, so that the line numbers are those of an editor.
        raw = pd.read_csv(
            path,
            dtype=str,
            skipinitialspace=True,
            skip_blank_lines=False,
            keep_default_na=False,
            na_values=[""],
        )
    except (ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise AnalysisError(f"{path} cannot be read as CSV ({reason}): fix it.") from error
    raw.columns = raw.columns.str.strip()
    raw = _renamed(raw, wanted.columns, path)
    missing = [column for column in wanted.numbers if column not in raw.columns]
    if missing:
        raise AnalysisError(
            f"{path} has no column {listing(missing)} (it has {listing(raw.columns, 12)}): "
            f"give {_told(wanted.numbers)}."
        )
    raw = raw.dropna(how="all")
    line = pd.Series([f"line {index + 2}" for index in raw.index], index=raw.index)
    numeric = [c for c in (*NUMBERS, *MORE_NUMBERS, "seed") if c in raw.columns]
    as_numbers = {c: pd.to_numeric(raw[c], errors="coerce") for c in numeric}
    table = tidy(raw.assign(**as_numbers), wanted.extra)
    table["model"] = table["model"].fillna("model")
    table["source"] = [f"{path}, {name}" for name in line]
    return usable(table, line, raw[list(wanted.numbers)].fillna("empty"), str(path))


def _told(columns: Sequence[str]) -> str:
    named = [f"{column}{UNITS.get(column, '')}" for column in columns]
    return f"{', '.join(named[:-1])} and {named[-1]}"


def _renamed(raw: pd.DataFrame, columns: Mapping[str, str], path: Path) -> pd.DataFrame:
    absent = [theirs for theirs in columns.values() if theirs not in raw.columns]
    if absent:
        raise AnalysisError(
            f"--columns names {listing(absent)}, which {path} does not have "
            f"(it has {listing(raw.columns, 12)}): name a column that is there."
        )
    # A column that is asked for under another name replaces one that has the name already.
    given = {ours: raw[theirs] for ours, theirs in columns.items()}
    return raw.assign(**given)
