"""One tidy table of points, whatever they come from: a CSV, the run store or a study.

Columns: model, size, budget (FLOPs under `convention`), params, tokens, loss (nats per token),
seed, convention, data_fingerprint, git_commit, run_id, source. A cell that the source does not
know is missing (NaN); params, tokens, loss and budget never are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import run_store
from analysis.errors import AnalysisError
from analysis.formatting import compute, count, listing, plural

NUMBERS = ("params", "tokens", "loss", "budget")
COLUMNS = (
    "model",
    "size",
    "budget",
    "params",
    "tokens",
    "loss",
    "seed",
    "convention",
    "data_fingerprint",
    "git_commit",
    "run_id",
    "source",
)
# What makes two rows the same experiment. Two conventions or two corpora are two experiments.
IDENTITY = ("model", "params", "budget", "seed", "convention", "data_fingerprint")


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """The columns above and no others: numbers as floats, names as text or missing."""
    table = table.reindex(columns=list(COLUMNS))
    kinds = {column: float if column in (*NUMBERS, "seed") else object for column in COLUMNS}
    return table.astype(kinds)


@dataclass(frozen=True)
class PointSet:
    """The table, and where it is from."""

    table: pd.DataFrame
    source: str
    warnings: tuple[str, ...] = ()
    study_folder: Path | None = None
    loss: str = "as given"
    params: str = "as given"

    def distinct(self, column: str) -> list[str]:
        """The different values of a column, in order, without the missing ones."""
        return sorted(str(value) for value in self.table[column].dropna().unique())

    @property
    def convention(self) -> str | None:
        """The FLOP convention of the budgets: one name, or several joined by ` + `."""
        return " + ".join(self.distinct("convention")) or None


def load_points(
    path: Path,
    *,
    loss: str = "causal",
    params: str = "nonembedding",
    study: str | None = None,
    allow_mixed: bool = False,
) -> PointSet:
    """Read points from a CSV file, a run store or a study folder, and check them.

    `loss` (causal, topk), `params` (nonembedding, total) and `study` (the name of a study beside
    the run store) choose among what a run store holds; a CSV has one loss and one params column.
    """
    if not path.exists():
        raise AnalysisError(
            f"POINTS {str(path)!r} does not exist: give a CSV file, a run store (runs/) or a "
            "study folder (studies/<name>/)."
        )
    if path.is_file():
        _refuse_store_options(path, loss, params, study)
        table, warnings = read_csv(path)
        return _checked(PointSet(table, str(path), tuple(warnings)), allow_mixed)
    if (path / "plan.json").is_file():
        if study is not None:
            raise AnalysisError(
                f"--study {study} goes with a run store and POINTS {str(path)!r} is a study "
                "already: leave --study out."
            )
        return _from_store(run_store.read_study(path), str(path), loss, params, allow_mixed)
    if study is None:
        return _from_store(path, str(path), loss, params, allow_mixed)
    folder = path.resolve().parent / "studies" / study
    if not (folder / "plan.json").is_file():
        raise AnalysisError(
            f"--study {study} has no plan at {folder / 'plan.json'}: give the study folder itself."
        )
    plan = run_store.read_study(folder)
    chosen = run_store.Study(folder, path, plan.run_ids)
    return _from_store(chosen, f"{path} (study {study})", loss, params, allow_mixed)


def _refuse_store_options(path: Path, loss: str, params: str, study: str | None) -> None:
    for option, value, default in (
        ("--loss", loss, "causal"),
        ("--params", params, "nonembedding"),
        ("--study", study, None),
    ):
        if value != default:
            raise AnalysisError(
                f"{option} {value} chooses among the numbers of a run store and {path} is a file "
                f"with one column of each: leave {option} out."
            )


def _from_store(
    where: run_store.Study | Path, source: str, loss: str, params: str, allow_mixed: bool
) -> PointSet:
    study = where if isinstance(where, run_store.Study) else None
    store = study.runs_dir if study else Path(source)
    rows, warnings = run_store.read_runs(store, study.run_ids if study else None, loss, params)
    table = tidy(pd.DataFrame(rows))
    values = table[list(NUMBERS)].map(lambda value: f"{value:g}")
    table, dropped = _usable(table, table["run_id"], values, source)
    folder = study.folder if study else None
    points = PointSet(table, source, (*warnings, *dropped), folder, loss, params)
    return _checked(points, allow_mixed)


def read_csv(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The points of a CSV with at least params, tokens, loss, budget; and warnings."""
    if path.suffix.lower() != ".csv":
        raise AnalysisError(f"POINTS {str(path)!r} is not a .csv file: export the points as CSV.")
    try:
        # As text, so that a value that is no number can be shown as it stands in the file; with
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
        raise AnalysisError(f"{path} cannot be read as CSV ({reason}): mend it.") from error
    raw.columns = raw.columns.str.strip()
    missing = [column for column in NUMBERS if column not in raw.columns]
    if missing:
        raise AnalysisError(
            f"{path} has no column {listing(missing)} (it has {listing(raw.columns, 12)}): "
            "give params, tokens, loss (nats per token) and budget (FLOPs)."
        )
    raw = raw.dropna(how="all")
    line = pd.Series([f"line {index + 2}" for index in raw.index], index=raw.index)
    numeric = [column for column in (*NUMBERS, "seed") if column in raw.columns]
    table = tidy(raw.assign(**{c: pd.to_numeric(raw[c], errors="coerce") for c in numeric}))
    table["model"] = table["model"].fillna("model")
    table["source"] = [f"{path}, {name}" for name in line]
    return _usable(table, line, raw[list(NUMBERS)].fillna("empty"), str(path))


def _usable(
    table: pd.DataFrame, names: pd.Series, shown: pd.DataFrame, source: str
) -> tuple[pd.DataFrame, list[str]]:
    """Without the rows that no fit can use, which are named."""
    numbers = table[list(NUMBERS)].to_numpy(float)
    good = np.isfinite(numbers) & (numbers > 0)
    bad = [
        f"{names.iloc[row]} ({NUMBERS[column]} {shown.iloc[row, column]})"
        for row, column in zip(*np.nonzero(~good), strict=True)
    ]
    kept = table[good.all(axis=1)]
    where = f"whose {', '.join(NUMBERS)} are not all positive numbers: {listing(bad)}"
    if kept.empty:
        told = f"has only rows {where}" if bad else "has no rows"
        raise AnalysisError(f"{source} {told}; there is nothing to fit.")
    if not bad:
        return kept.reset_index(drop=True), []
    left_out = plural(len(table) - len(kept), "row")
    warning = f"Left out {left_out} of {source} {where}."
    return kept.reset_index(drop=True), [warning]


def _checked(points: PointSet, allow_mixed: bool) -> PointSet:
    if not allow_mixed:
        _refuse_mixed(points, "convention", "FLOP conventions")
        _refuse_mixed(points, "data_fingerprint", "data fingerprints")
    _refuse_duplicates(points)
    return points


def _refuse_mixed(points: PointSet, column: str, noun: str) -> None:
    groups = points.table[column].fillna("none given").value_counts()
    if len(groups) > 1:
        held = listing(
            f"{value} ({plural(int(number), 'point')})" for value, number in groups.items()
        )
        raise AnalysisError(
            f"{points.source} mixes {noun}, whose numbers do not compare: {held}; "
            "split the points, or pass --allow-mixed."
        )


def _refuse_duplicates(points: PointSet) -> None:
    table = points.table
    repeated = table[table.duplicated(list(IDENTITY), keep=False)]
    if repeated.empty:
        return
    twins = next(iter(repeated.groupby(list(IDENTITY), dropna=False, sort=False)))[1]
    first = twins.iloc[0]
    names = twins["run_id"].where(twins["run_id"].notna(), twins["source"])
    seed = "no seed" if pd.isna(first["seed"]) else f"seed {first['seed']:g}"
    raise AnalysisError(
        f"{points.source} holds {len(twins)} points for model {first['model']}, "
        f"{count(first['params'])} params, budget {compute(first['budget'])}, {seed} "
        f"({listing(names)}): keep one of them, or give each its own seed."
    )
