"""Rows of points from the ledger: `runs/<run_id>/result.json`, and a study's `plan.json`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.formatting import listing, plural
from analysis.points.corpora import with_corpora
from analysis.points.series import name_series
from ledger.errors import DamagedFile, MalformedFile, UserError
from ledger.folder import RunFolder
from ledger.ids import is_trunk
from ledger.plan_file import PlanFile, StudyFolder, read_plan
from ledger.result import BYTE_KEYS, DONE, LOSS_KEYS, Result
from ledger.settings import flatten

RESULT = RunFolder(Path()).result_file.name
PARAMS_KEYS = {"nonembedding": "n_params_nonembedding", "total": "n_params"}
# What a point is made of; other keys of a result may be absent in older ones.
NEEDED = ("run_id", "model", "size", "budget", "convention", "seed", "tokens", "loss", "data")


@dataclass(frozen=True)
class Study:
    """The runs that one study asks for, and the store that holds them."""

    folder: Path
    runs_dir: Path
    run_ids: list[str]
    labels: Mapping[str, str] = field(default_factory=dict)  # what it calls runs: their variants
    plan: PlanFile = field(default_factory=PlanFile)


def read_study(folder: Path) -> Study:
    """The plan of `studies/<name>/`: its runs and the run store named by `runs_dir`."""
    plan = plan_of(StudyFolder(folder).plan_file)
    wanted = [run.run_id for run in plan.runs if not is_trunk(run.run_id)]
    labels = {run.run_id: run.label for run in plan.runs if run.label}
    store = _find_store(folder, Path(plan.runs_dir or "runs"))
    return Study(folder, store, list(dict.fromkeys(wanted)), labels, plan)


def plan_of(file: Path) -> PlanFile:
    """A plan file. Raises AnalysisError where it is none."""
    try:
        return read_plan(file)
    except UserError as error:
        raise AnalysisError(str(error)) from None


def _find_store(study: Path, runs_dir: Path) -> Path:
    # `studies/<name>/` stands beside `runs/`, so the project that holds the study comes first;
    # a store named relative to where the command runs comes next.
    tried = list(dict.fromkeys([study.resolve().parent.parent / runs_dir, runs_dir]))
    for candidate in tried:
        if candidate.is_dir():
            return candidate
    raise AnalysisError(
        f"{StudyFolder(study).plan_file} names the run store runs_dir={str(runs_dir)!r}, which "
        f"is not a folder (looked at {listing(tried)}): move the store there, or give the store "
        "itself."
    )


def read_runs(
    store: Path,
    wanted: list[str] | None,
    loss: str,
    params: str,
    labels: Mapping[str, str] | None = None,
) -> tuple[list[dict[str, Any]], list[Caution]]:
    """Points of the finished runs in `store` (only those `wanted`, if given), and warnings.

    A run with a label has it as its curve: a study's variants are its curves. Raises AnalysisError
    where no run has a result, or a result lacks what is asked for.
    """
    present = sorted(
        folder.name for folder in store.iterdir() if folder.is_dir() and not is_trunk(folder.name)
    )
    names = present if wanted is None else wanted
    files = {name: RunFolder(store / name).result_file for name in names}
    pending = [name for name, file in files.items() if not file.is_file()]
    missing = set(pending)
    if len(pending) == len(files):
        raise AnalysisError(
            f"{store} holds no finished run ({plural(len(files), 'run')}, none with a "
            "result.json): wait for one, or give the folder whose sub-folders are runs."
        )
    warnings: list[Caution] = []
    if pending:
        warnings.append(
            Caution(
                Code.PENDING,
                f"No result yet for {len(pending)} of {plural(len(files), 'run')}: "
                f"{listing(pending)}.",
            )
        )
    results: dict[str, tuple[str, Result]] = {}
    damaged = []
    for name, found in _results({n: f for n, f in files.items() if n not in missing}):
        if found is None:
            damaged.append(name)
        else:
            results[name] = (str(files[name]), found)
    if damaged:
        warnings.append(
            Caution(
                Code.DAMAGED,
                f"Left out {plural(len(damaged), 'run')} whose result.json is not what was "
                f"written: {listing(sorted(damaged))}. Launched again, the study makes it again.",
            )
        )
    rows, said = rows_of(results, str(store), loss, params, labels)
    return rows, [*warnings, *said]


def _results(files: Mapping[str, Path]) -> Iterator[tuple[str, Result | None]]:
    """The results of files that are there, None where one is not what was written."""
    for name, file in files.items():
        try:
            yield name, result_of(file)
        except DamagedFile:
            yield name, None


def rows_of(
    results: Mapping[str, tuple[str, Result]],
    source: str,
    loss: str,
    params: str,
    labels: Mapping[str, str] | None = None,
) -> tuple[list[dict[str, Any]], list[Caution]]:
    """Points of the results that are done, and warnings; each result with where it is kept.

    Raises AnalysisError where none is done.
    """
    rows = []
    warnings: list[Caution] = []
    skipped: dict[str, list[str]] = {}
    for name, (where, result) in results.items():
        if result.done:
            rows.append(
                _point(result, where, {**LOSS_KEYS, **BYTE_KEYS}[loss], PARAMS_KEYS[params])
            )
        else:
            need(result, where, "status")
            skipped.setdefault(result.status, []).append(name)
    for status, left_out in skipped.items():
        warnings.append(
            Caution(
                Code.UNFINISHED,
                f"Left out {plural(len(left_out), 'run')} with status {status!r}: "
                f"{listing(left_out)}.",
            )
        )
    warnings.extend(_repeated([result for _, result in results.values() if result.done]))
    for row in rows:
        if label := (labels or {}).get(row["run_id"]):
            row["label"] = row["curve"] = label
    settings = {name: result.settings for name, (_, result) in results.items()}
    if loss in BYTE_KEYS:
        settings = with_corpora(settings, {row["run_id"]: row for row in rows})
    warnings.extend(name_series(rows, settings, corpora=loss in BYTE_KEYS))
    if not rows:
        raise AnalysisError(
            f"{source} holds {plural(len(results), 'result')} and not one with status {DONE!r} "
            f"({', '.join(sorted(skipped))}): there is nothing to fit."
        )
    return rows, warnings


def _repeated(results: Sequence[Result]) -> list[Caution]:
    """A caution where runs have read all of their corpus."""
    repeating = {one.run_id: one.epochs for one in results if one.epochs and one.epochs >= 1}
    if not repeating:
        return []
    text = (
        f"Read the whole corpus, up to {max(repeating.values()):.3g} times: {len(repeating)} of "
        f"{plural(len(results), 'run')}, {listing(sorted(repeating))}. Tokens read again teach "
        "less than new ones, so the fits hold for this corpus."
    )
    return [Caution(Code.REPEATED_DATA, text)]


def _point(result: Result, where: str, loss_key: str, params_key: str) -> dict[str, Any]:
    need(result, where, *NEEDED, params_key)
    if loss_key not in result.loss:
        raise AnalysisError(f"{where} holds no {loss_key!r} under 'loss': choose another --loss.")
    if not isinstance(result.data.get("fingerprint"), str):
        raise AnalysisError(f"{where} should hold the text 'data.fingerprint': fix it.")
    return {
        "model": result.model,
        "size": result.size,
        "budget": number(result.budget),
        "params": number(getattr(result, params_key)),
        "tokens": number(result.tokens),
        "loss": number(result.loss[loss_key]),
        "seed": number(result.seed),
        "convention": result.convention,
        "data_fingerprint": result.data["fingerprint"],
        "git_commit": result.extra.get("git_commit"),
        "code": result.extra.get("code"),
        "run_id": result.run_id,
        "source": where.removesuffix(f"/{RESULT}"),
        "trunk": result.trunk,
        "settings": flatten(result.settings),
        "recipe": result.recipe,
    }


def need(result: Result, where: str | Path, *names: str) -> None:
    """Raises AnalysisError where a result lacks one of these keys."""
    for name in names:
        if not result.has(name) or (name == "convention" and result.convention is None):
            raise AnalysisError(f"{where} does not hold {name!r}, which a point needs: fix it.")


def number(value: float | None) -> float:
    """A number, or NaN for null: the common filter names and drops it later."""
    return float("nan") if value is None else float(value)


def result_of(file: Path) -> Result | None:
    """A run's result; None while there is none. DamagedFile where it is not what was written.

    Raises AnalysisError where it is not a result, or of another version.
    """
    try:
        return RunFolder(file.parent).result()
    except MalformedFile as error:
        raise AnalysisError(str(error)) from None
    except DamagedFile:
        raise
    except UserError as error:
        raise AnalysisError(str(error)) from None
