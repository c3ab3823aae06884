"""One tidy table of points, whatever they come from: a CSV, the run store, a study or W&B.

Columns: model, size, budget (FLOPs under `convention`), params, tokens, loss (nats per token),
seed, convention, data_fingerprint, git_commit, code (git tree of the training code), run_id,
source. A cell that the source does not know is missing (NaN); the numbers that a fit needs never
are. A fit that needs more (the parts of a looped model, the trunk) names the columns that it wants
beside these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import run_store, wandb_points
from analysis.errors import AnalysisError
from analysis.formatting import compute, count, listing, plural
from analysis.looped import with_parts

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
    "code",
    "run_id",
    "source",
)
# What makes two rows the same experiment. Two conventions or two corpora are two experiments.
IDENTITY = ("model", "params", "budget", "seed", "convention", "data_fingerprint")
# Numbers that only some fits ask for; of these, only the looped part of a model may be zero.
MORE_NUMBERS = ("n_once", "n_rec", "r")
MAY_BE_ZERO = "n_rec"
LAW_NUMBERS = ("params", "tokens", "loss")
JOINT_NUMBERS = (*LAW_NUMBERS, *MORE_NUMBERS)


@dataclass(frozen=True)
class Wanted:
    """What a fit asks of the points: `numbers` for every point, `names` where the source has them.

    `columns` maps a column of ours to the one that a CSV calls it by.
    """

    numbers: tuple[str, ...] = NUMBERS
    names: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def extra(self) -> tuple[str, ...]:
        """The columns beyond the tidy table's own."""
        return tuple(c for c in (*self.numbers, *self.names) if c not in COLUMNS)

    @property
    def identity(self) -> tuple[str, ...]:
        """Curves have many points of a model: without budgets, tokens tell them apart."""
        return IDENTITY if "budget" in self.numbers else (*IDENTITY, "tokens")


def tidy(table: pd.DataFrame, extra: Sequence[str] = ()) -> pd.DataFrame:
    """The columns above, `extra` and no others: numbers as floats, names as text or missing."""
    columns = (*COLUMNS, *extra)
    table = table.reindex(columns=list(columns))
    numbers = (*NUMBERS, *MORE_NUMBERS, "seed")
    return table.astype({column: float if column in numbers else object for column in columns})


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
    wanted: Wanted | None = None,
) -> PointSet:
    """Read points from a CSV file, a run store, a study folder or W&B, and check them.

    W&B: `wandb://entity/project[/group]`, a `.wandb` file or a folder with some.

    `loss` (causal, topk), `params` (nonembedding, total) and `study` (the name of a study beside
    the run store) choose among what a run store holds; a CSV has one loss and one params column.
    `wanted` is what the fit needs of each point; default: params, tokens, loss and budget.
    """
    wanted = wanted or Wanted()
    if not path.exists() and not wandb_points.is_address(path):
        raise AnalysisError(
            f"POINTS {str(path)!r} does not exist: give a CSV file, a run store (runs/), a "
            "study folder (studies/<name>/) or wandb://entity/project."
        )
    if wandb_points.is_address(path) or _is_offline(path):
        _refuse_study_and_columns(path, study, wanted)
        return _from_wandb(path, loss, params, allow_mixed, wanted)
    if path.is_file():
        _refuse_store_options(path, loss, params, study)
        table, warnings = read_csv(path, wanted)
        return _checked(PointSet(table, str(path), tuple(warnings)), allow_mixed, wanted)
    if wanted.columns:
        raise AnalysisError(
            f"--columns names the columns of a CSV and {path} is a folder of runs, whose results "
            "have names of their own: leave --columns out."
        )
    if (path / "plan.json").is_file():
        if study is not None:
            raise AnalysisError(
                f"--study {study} goes with a run store and POINTS {str(path)!r} is a study "
                "already: leave --study out."
            )
        chosen = run_store.read_study(path)
        return _from_store(chosen, str(path), loss, params, allow_mixed, wanted)
    if study is None:
        return _from_store(path, str(path), loss, params, allow_mixed, wanted)
    folder = path.resolve().parent / "studies" / study
    if not (folder / "plan.json").is_file():
        raise AnalysisError(
            f"--study {study} has no plan at {folder / 'plan.json'}: give the study folder itself."
        )
    plan = run_store.read_study(folder)
    chosen = run_store.Study(folder, path, plan.run_ids, plan.labels)
    return _from_store(chosen, f"{path} (study {study})", loss, params, allow_mixed, wanted)


def _is_offline(path: Path) -> bool:
    """A .wandb file, or a folder that holds some and is neither a study nor a run store."""
    if path.is_file():
        return path.suffix == ".wandb"
    ours = (path / "plan.json").is_file() or any(path.glob("*/result.json"))
    return not ours and bool(wandb_points.find_offline(path))


def _refuse_study_and_columns(path: Path, study: str | None, wanted: Wanted) -> None:
    option = f"--study {study}" if study else "--columns" if wanted.columns else ""
    if option:
        raise AnalysisError(
            f"{option} does not go with runs from W&B ({path}): leave it out; a study is the group "
            "in wandb://entity/project/group."
        )


def _from_wandb(path: Path, loss: str, params: str, allow_mixed: bool, wanted: Wanted) -> PointSet:
    if wandb_points.is_address(path):
        source, results, warnings = wandb_points.online(path)
    else:
        source = str(path)
        results, warnings = wandb_points.offline(wandb_points.find_offline(path), source)
    rows, said = run_store.rows_of(results, source, loss, params)
    table = tidy(pd.DataFrame(rows), wanted.extra)
    if "n_rec" in wanted.numbers:
        raise AnalysisError(
            f"{source} does not tell how layers are shared, which this fit needs: give the run "
            "store (runs/) instead."
        )
    table, dropped = _usable_rows(table, wanted, source)
    points = PointSet(table, source, (*warnings, *said, *dropped), None, loss, params)
    return _checked(points, allow_mixed, wanted)


def _usable_rows(
    table: pd.DataFrame, wanted: Wanted, source: str
) -> tuple[pd.DataFrame, list[str]]:
    values = table[list(wanted.numbers)].map(lambda value: f"{value:g}")
    return _usable(table, table["run_id"], values, source)


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
    where: run_store.Study | Path,
    source: str,
    loss: str,
    params: str,
    allow_mixed: bool,
    wanted: Wanted,
) -> PointSet:
    study = where if isinstance(where, run_store.Study) else None
    store = study.runs_dir if study else Path(source)
    names, labels = (study.run_ids, study.labels) if study else (None, None)
    rows, warnings = run_store.read_runs(store, names, loss, params, labels)
    table = tidy(pd.DataFrame(rows), wanted.extra)
    if "n_rec" in wanted.numbers:
        table = with_parts(table)
    table, dropped = _usable_rows(table, wanted, source)
    folder = study.folder if study else None
    points = PointSet(table, source, (*warnings, *dropped), folder, loss, params)
    return _checked(points, allow_mixed, wanted)


def read_csv(path: Path, wanted: Wanted | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The points of a CSV with at least the wanted numbers; and warnings."""
    wanted = wanted or Wanted()
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
    return _usable(table, line, raw[list(wanted.numbers)].fillna("empty"), str(path))


UNITS = {"loss": " (nats per token)", "budget": " (FLOPs)"}


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


def _usable(
    table: pd.DataFrame, names: pd.Series, shown: pd.DataFrame, source: str
) -> tuple[pd.DataFrame, list[str]]:
    """Without the rows that no fit can use, which are named; `shown` has the needed columns."""
    needed = list(shown.columns)
    numbers = table[needed].to_numpy(float)
    zero_is_fine = np.array([column == MAY_BE_ZERO for column in needed])
    good = np.isfinite(numbers) & ((numbers > 0) | (zero_is_fine & (numbers == 0)))
    bad = [
        f"{names.iloc[row]} ({needed[column]} {shown.iloc[row, column]})"
        for row, column in zip(*np.nonzero(~good), strict=True)
    ]
    kept = table[good.all(axis=1)]
    where = f"whose {', '.join(needed)} are not all positive numbers: {listing(bad)}"
    if kept.empty:
        told = f"has only rows {where}" if bad else "has no rows"
        raise AnalysisError(f"{source} {told}; there is nothing to fit.")
    if not bad:
        return kept.reset_index(drop=True), []
    left_out = plural(len(table) - len(kept), "row")
    warning = f"Left out {left_out} of {source} {where}."
    return kept.reset_index(drop=True), [warning]


def _checked(points: PointSet, allow_mixed: bool, wanted: Wanted) -> PointSet:
    if not allow_mixed:
        _refuse_mixed(points, "convention", "FLOP conventions")
        _refuse_mixed(points, "data_fingerprint", "data fingerprints")
        known = points.table["code"].notna()  # older results do not tell it
        _refuse_mixed(points, "code", "versions of the training code", known)
    _refuse_duplicates(points, list(wanted.identity))
    return points


def _refuse_mixed(
    points: PointSet, column: str, noun: str, where: pd.Series | slice = slice(None)
) -> None:
    groups = points.table[column][where].fillna("none given").value_counts()
    if len(groups) > 1:
        held = listing(
            f"{value} ({plural(int(number), 'point')})" for value, number in groups.items()
        )
        raise AnalysisError(
            f"{points.source} mixes {noun}, whose numbers do not compare: {held}; "
            "split the points, or pass --allow-mixed."
        )


def _refuse_duplicates(points: PointSet, identity: list[str]) -> None:
    table = points.table
    repeated = table[table.duplicated(identity, keep=False)]
    if repeated.empty:
        return
    twins = next(iter(repeated.groupby(identity, dropna=False, sort=False)))[1]
    first = twins.iloc[0]
    names = twins["run_id"].where(twins["run_id"].notna(), twins["source"])
    seed = "no seed" if pd.isna(first["seed"]) else f"seed {first['seed']:g}"
    said = count(first["tokens"]) + " tokens"
    where = said if pd.isna(first["budget"]) else f"budget {compute(first['budget'])}"
    raise AnalysisError(
        f"{points.source} holds {len(twins)} points for model {first['model']}, "
        f"{count(first['params'])} params, {where}, {seed} "
        f"({listing(names)}): keep one of them, or give each its own seed."
    )
