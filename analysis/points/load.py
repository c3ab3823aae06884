"""Points from whatever holds them: a CSV, the run store, a study or W&B."""

from pathlib import Path

import pandas as pd

from analysis.cautions import Caution
from analysis.errors import AnalysisError
from analysis.points import run_store, wandb_runs
from analysis.points.checks import checked, usable
from analysis.points.csv import read_csv
from analysis.points.looped import with_parts
from analysis.points.table import PointSet, Wanted, tidy
from ledger.plan_file import StudyFolder


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
    Raises AnalysisError where there are no points, or none that can be used together.
    """
    wanted = wanted or Wanted()
    if not path.exists() and not wandb_runs.is_address(path):
        raise AnalysisError(
            f"POINTS {str(path)!r} does not exist: give a CSV file, a run store (runs/), a "
            "study folder (studies/<name>/) or wandb://entity/project."
        )
    if wandb_runs.is_address(path) or _is_offline(path):
        _refuse_study_and_columns(path, study, wanted)
        return _from_wandb(path, loss, params, allow_mixed, wanted)
    if path.is_file():
        _refuse_store_options(path, loss, params, study)
        table, warnings = read_csv(path, wanted)
        return checked(PointSet(table, str(path), tuple(warnings)), allow_mixed, wanted)
    if wanted.columns:
        raise AnalysisError(
            f"--columns names the columns of a CSV and {path} is a folder of runs, whose results "
            "have names of their own: leave --columns out."
        )
    if StudyFolder(path).plan_file.is_file():
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
    plan_file = StudyFolder(folder).plan_file
    if not plan_file.is_file():
        raise AnalysisError(
            f"--study {study} has no plan at {plan_file}: give the study folder itself."
        )
    plan = run_store.read_study(folder)
    chosen = run_store.Study(folder, path, plan.run_ids, plan.labels)
    return _from_store(chosen, f"{path} (study {study})", loss, params, allow_mixed, wanted)


def _is_offline(path: Path) -> bool:
    """A .wandb file, or a folder that holds some and is neither a study nor a run store."""
    if path.is_file():
        return path.suffix == ".wandb"
    ours = StudyFolder(path).plan_file.is_file() or any(path.glob(f"*/{run_store.RESULT}"))
    return not ours and bool(wandb_runs.find_offline(path))


def _refuse_study_and_columns(path: Path, study: str | None, wanted: Wanted) -> None:
    option = f"--study {study}" if study else "--columns" if wanted.columns else ""
    if option:
        raise AnalysisError(
            f"{option} does not go with runs from W&B ({path}): leave it out; a study is the group "
            "in wandb://entity/project/group."
        )


def _from_wandb(path: Path, loss: str, params: str, allow_mixed: bool, wanted: Wanted) -> PointSet:
    if wandb_runs.is_address(path):
        source, results, warnings = wandb_runs.online(path)
    else:
        source = str(path)
        results, warnings = wandb_runs.offline(wandb_runs.find_offline(path), source)
    rows, said = run_store.rows_of(results, source, loss, params)
    table = tidy(pd.DataFrame(rows), wanted.extra)
    if "n_rec" in wanted.numbers:
        raise AnalysisError(
            f"{source} does not say how layers are shared, which this fit needs: give the run "
            "store (runs/) instead."
        )
    table, dropped = _usable_rows(table, wanted, source)
    points = PointSet(table, source, (*warnings, *said, *dropped), None, loss, params)
    return checked(points, allow_mixed, wanted)


def _usable_rows(
    table: pd.DataFrame, wanted: Wanted, source: str
) -> tuple[pd.DataFrame, list[Caution]]:
    values = table[list(wanted.numbers)].map(lambda value: f"{value:g}")
    return usable(table, table["run_id"], values, source)


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
    return checked(points, allow_mixed, wanted)
