"""Scores on evaluation tasks: for each task set a table with a row for each run that has them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.points.table import curve_of
from ledger.errors import UserError
from ledger.evaluation import Evaluation
from ledger.folder import RunFolder

LOWER_IS_BETTER = "bits per byte"
DIGITS = {LOWER_IS_BETTER: ".4f"}


@dataclass(frozen=True)
class Row:
    """One run's scores in the table's columns; `best` are those that no other run beats."""

    run: str
    model: str
    cells: tuple[str, ...]
    best: tuple[bool, ...]


@dataclass(frozen=True)
class TaskSet:
    """The scores of some runs on the same tasks."""

    name: str
    unit: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    said: str  # the harness's version, documents, cut requests


def evaluations(points: pd.DataFrame) -> list[TaskSet]:
    """A table for each task set, of runs that were asked the same; largest number of runs first."""
    found: dict[tuple[str, str], dict[str, tuple[str, Evaluation]]] = {}
    named = points.assign(curve=curve_of(points))
    for row in named.to_dict("records"):
        for name, one in _of_run(Path(str(row["source"]))):
            group = found.setdefault((name, one.documents), {})
            group[str(row["run_id"])] = (str(row["curve"]), one)
    tables = [_table(name, runs) for (name, _), runs in found.items()]
    return sorted(tables, key=lambda table: (-len(table.rows), table.name))


def _of_run(folder: Path) -> list[tuple[str, Evaluation]]:
    """What a run's folder has, by file name; a file of another form gives nothing, never an
    error: the points were checked before."""
    found = []
    run = RunFolder(folder)
    for path in sorted(run.evaluation_file("x").parent.glob("[!.]*.json")):
        try:
            one = run.evaluation(path.stem)
        except UserError:
            continue
        if one is not None and one.scores:
            found.append((path.stem, one))
    return found


def _table(name: str, runs: Mapping[str, tuple[str, Evaluation]]) -> TaskSet:
    first = next(one for _, one in runs.values())
    columns = list(dict.fromkeys(key for _, one in runs.values() for key in one.scores))
    best = {key: _best(first.unit, (one.scores.get(key) for _, one in runs.values()))
            for key in columns}  # fmt: skip
    spec = DIGITS.get(first.unit, ".1f")
    rows = [
        Row(
            run,
            model,
            tuple(_cell(one.scores.get(key), spec) for key in columns),
            tuple(len(runs) > 1 and one.scores.get(key) == best[key] for key in columns),
        )
        for run, (model, one) in runs.items()
    ]
    return TaskSet(name, first.unit, tuple(columns), tuple(rows), _said(first, runs))


def _best(unit: str, values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return min(known) if unit == LOWER_IS_BETTER else max(known)


def _cell(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _said(first: Evaluation, runs: Mapping[str, tuple[str, Evaluation]]) -> str:
    harness = first.harness
    documents = sum(each.get("n", 0) for each in first.tasks.values())
    said = f"{harness.get('name', 'harness')} {harness.get('version', '')}, {documents:,.0f} "
    said += f"documents of {len(first.tasks)} tasks, routed as at inference"
    cut = max(one.cut for _, one in runs.values())
    if cut:
        said += f"; up to {cut:,} requests were longer than a model's context and were cut"
    return said + "."
