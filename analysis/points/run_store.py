"""Rows of points from the ledger: `runs/<run_id>/result.json`, and a study's `plan.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.formatting import listing, plural
from analysis.points.series import flatten, name_series
from ledger.damage import check_digest
from ledger.errors import DamagedFile
from ledger.folder import RunFolder
from ledger.ids import is_trunk
from ledger.plan_file import StudyFolder
from ledger.result import BYTE_KEYS, DONE, LOSS_KEYS, RESULT_SCHEMA

RESULT = RunFolder(Path()).result_file.name
PARAMS_KEYS = {"nonembedding": "n_params_nonembedding", "total": "n_params"}

_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}


@dataclass(frozen=True)
class Study:
    """The runs that one study asks for, and the store that holds them."""

    folder: Path
    runs_dir: Path
    run_ids: list[str]
    labels: Mapping[str, str] = field(default_factory=dict)  # what it calls runs: their variants


def read_study(folder: Path) -> Study:
    """The plan of `studies/<name>/`: its `runs` and the run store named by `runs_dir`."""
    file = StudyFolder(folder).plan_file
    plan = read_object(file)
    runs = _need(plan, "runs", list, file)
    ids = [run["run_id"] if isinstance(run, dict) and "run_id" in run else run for run in runs]
    strange = [run for run in ids if not isinstance(run, str)]
    if strange:
        raise AnalysisError(
            f"{file} lists a run without a run_id ({json.dumps(strange[0])[:80]}): "
            "each entry of `runs` needs one."
        )
    wanted = [run_id for run_id in dict.fromkeys(ids) if not is_trunk(run_id)]
    labels = {
        run["run_id"]: run["label"] for run in runs if isinstance(run, dict) and run.get("label")
    }
    return Study(folder, _find_store(folder, Path(plan.get("runs_dir", "runs"))), wanted, labels)


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

    A run with a label has it as its curve: a study's variants are its curves.
    """
    present = sorted(
        folder.name for folder in store.iterdir() if folder.is_dir() and not is_trunk(folder.name)
    )
    names = present if wanted is None else wanted
    files = {name: RunFolder(store / name).result_file for name in names}
    pending = [name for name, file in files.items() if not file.is_file()]
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
    damaged = {name for name in files if _damaged(RunFolder(store / name))}
    if damaged:
        warnings.append(
            Caution(
                Code.DAMAGED,
                f"Left out {plural(len(damaged), 'run')} whose result.json is not what was "
                f"written: {listing(sorted(damaged))}. Launched again, the study makes it again.",
            )
        )
    results = {
        name: (str(file), _read_result(file))
        for name, file in files.items()
        if name not in {*pending, *damaged}
    }
    rows, said = rows_of(results, str(store), loss, params, labels)
    return rows, [*warnings, *said]


def rows_of(
    results: Mapping[str, tuple[str, dict[str, Any]]],
    source: str,
    loss: str,
    params: str,
    labels: Mapping[str, str] | None = None,
) -> tuple[list[dict[str, Any]], list[Caution]]:
    """Points of the results that are done, and warnings; each result with where it is kept."""
    rows = []
    warnings: list[Caution] = []
    skipped: dict[str, list[str]] = {}
    for name, (where, result) in results.items():
        status = _need(result, "status", str, where)
        if status == DONE:
            rows.append(
                _point(result, where, {**LOSS_KEYS, **BYTE_KEYS}[loss], PARAMS_KEYS[params])
            )
        else:
            skipped.setdefault(status, []).append(name)
    for status, left_out in skipped.items():
        warnings.append(
            Caution(
                Code.UNFINISHED,
                f"Left out {plural(len(left_out), 'run')} with status {status!r}: "
                f"{listing(left_out)}.",
            )
        )
    for row in rows:
        if label := (labels or {}).get(row["run_id"]):
            row["label"] = row["curve"] = label
    settings = {name: result.get("settings", {}) for name, (_, result) in results.items()}
    warnings.extend(name_series(rows, settings, corpora=loss in BYTE_KEYS))
    if not rows:
        raise AnalysisError(
            f"{source} holds {plural(len(results), 'result')} and not one with status {DONE!r} "
            f"({', '.join(sorted(skipped))}): there is nothing to fit."
        )
    return rows, warnings


def _point(result: dict[str, Any], where: str, loss_key: str, params_key: str) -> dict[str, Any]:
    losses = _need(result, "loss", dict, where)
    data = _need(result, "data", dict, where)
    return {
        "model": _need(result, "model", str, where),
        "size": _need(result, "size", str, where),
        "budget": need_number(result, "budget", where),
        "params": need_number(result, params_key, where),
        "tokens": need_number(result, "tokens", where),
        "loss": need_number(losses, loss_key, where),
        "seed": need_number(result, "seed", where),
        "convention": _need(result, "convention", str, where),
        "data_fingerprint": _need(data, "fingerprint", str, where),
        "git_commit": result.get("git_commit"),
        "code": result.get("code"),
        "run_id": _need(result, "run_id", str, where),
        "source": where.removesuffix(f"/{RESULT}"),
        "trunk": result.get("trunk"),
        "settings": _settings(result),
        "recipe": result.get("recipe"),
    }


def _settings(result: dict[str, Any]) -> dict[str, Any]:
    settings = result.get("settings")
    return flatten(settings) if isinstance(settings, dict) else {}


def _damaged(folder: RunFolder) -> bool:
    try:
        check_digest(folder.result_file, folder.digest_file)
    except DamagedFile:
        return True
    return False


def _read_result(file: Path) -> dict[str, Any]:
    result = read_object(file)
    if result.get("schema") != RESULT_SCHEMA:
        raise AnalysisError(
            f"{file} has schema {result.get('schema')!r} and this version reads schema "
            f"{RESULT_SCHEMA}: use the version of the code that wrote it, or move the run away."
        )
    return result


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; AnalysisError where there is none."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise AnalysisError(
            f"{file} cannot be read as JSON ({error}): fix or remove it."
        ) from error
    if not isinstance(content, dict):
        raise AnalysisError(f"{file} does not hold a JSON object: fix or remove it.")
    return content


def _need(content: dict[str, Any], key: str, kind: type, file: Path | str) -> Any:
    if isinstance(content.get(key), kind):
        return content[key]
    found = json.dumps(content[key])[:80] if key in content else "no such key"
    raise AnalysisError(f"{file} should hold {key!r} as {_KINDS[kind]} and has {found}: fix it.")


def need_number(content: dict[str, Any], key: str, file: Path | str) -> float:
    """A number, or NaN for null: the common filter names and drops it later."""
    value = content.get(key, "no such key")
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AnalysisError(f"{file} should hold {key!r} as a number and has {value!r}: fix it.")
    return float(value)
