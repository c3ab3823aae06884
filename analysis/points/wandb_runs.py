"""Runs kept by W&B as results, the same that `runs/<run_id>/result.json` holds.

A finished run's summary is its result. Online: `wandb://entity/project[/group]` through the public
API. Offline: the `.wandb` files that W&B writes beside a run, a log of protobuf records in blocks
of 32 KiB, in LevelDB's log format (this client ships no reader of it in Python).
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.formatting import listing, plural
from analysis.points.wandb_client import connect, one_reason
from ledger.ids import is_trunk
from ledger.part import WrongValue
from ledger.result import Result

SCHEME = "wandb:"
MAGIC, HEADER, BLOCK, RECORD_HEADER = b":W&B", 7, 32768, 7
FULL, FIRST, LAST = 1, 2, 4
Summary = dict[str, Any]
Results = dict[str, tuple[str, Result]]  # by run id: where it is, and what it says


def is_address(path: Path) -> bool:
    """Whether POINTS is wandb://... (of which a Path keeps one slash)."""
    return path.parts[:1] == (SCHEME,)


def online(path: Path) -> tuple[str, Results, list[Caution]]:
    """The address as typed, the results of its runs, and warnings.

    Raises AnalysisError for an address of another form, without a key, or without such runs.
    """
    parts = path.parts[1:]
    address = f"wandb://{'/'.join(parts)}"
    if not 2 <= len(parts) <= 3:
        raise AnalysisError(
            f"POINTS {address!r} is not a W&B address: write it as wandb://entity/project or "
            "wandb://entity/project/group."
        )
    entity, project, *group = parts
    api = connect()
    with one_reason():
        chosen = {"group": group[0]} if group else None
        runs = list(api.runs(f"{entity}/{project}", filters=chosen, lazy=False))
        found = [(run.id, f"wandb://{entity}/{project}/{run.id}", _plain(run)) for run in runs]
    return address, *_finished(found, address)


def _plain(run: Any) -> Summary:
    summary = run.summary_metrics
    return dict(json.loads(summary) if isinstance(summary, str) else summary or {})


def find_offline(path: Path) -> list[Path]:
    """`path` itself if it is a .wandb file, else every one below it, sorted."""
    if path.is_file():
        return [path] if path.suffix == ".wandb" else []
    return sorted(path.rglob("*.wandb"))


def offline(files: list[Path], source: str) -> tuple[Results, list[Caution]]:
    """The results in offline files; of a run's several attempts, the last that finished."""
    found = []
    for file in files:
        run_id, summary = read_offline(file)
        found.append((run_id or file.stem.removeprefix("run-"), str(file), summary))
    return _finished(found, source)


def _finished(found: list[tuple[str, str, Summary]], source: str) -> tuple[Results, list[Caution]]:
    results: Results = {}
    seen = {}
    for run_id, where, summary in found:
        if is_trunk(run_id):
            continue
        seen[run_id] = where
        if isinstance(summary.get("status"), str) and isinstance(summary.get("loss"), dict):
            results[run_id] = (where, _result(where, summary))
    if not results:
        raise AnalysisError(
            f"{source} holds no finished run of this project ({plural(len(seen), 'run')}, none "
            "with a result in its summary): wait for one, or give the run store."
        )
    open_ones = [run_id for run_id in seen if run_id not in results]
    if not open_ones:
        return results, []
    told = (
        f"No result yet for {len(open_ones)} of {plural(len(seen), 'run')}: {listing(open_ones)}."
    )
    return results, [Caution(Code.PENDING, told)]


def _result(where: str, summary: Summary) -> Result:
    try:
        return Result.from_dict(summary)
    except WrongValue as wrong:
        raise AnalysisError(f"{where}: its summary is not a result ({wrong}).") from None


def read_offline(file: Path) -> tuple[str, Summary]:
    """Run id and summary of one file, with what a crash cut off at its end left out.

    Raises AnalysisError for a file of another form.
    """
    from wandb.proto import wandb_internal_pb2

    run_id = ""
    summary: Summary = {}
    record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
    for data in _records(file):
        record.ParseFromString(data)
        if record.HasField("run"):
            run_id = record.run.run_id
        if record.HasField("summary"):
            for item in record.summary.update:
                _put(summary, list(item.nested_key) or [item.key], json.loads(item.value_json))
    return run_id, summary


def _put(summary: Summary, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(summary.get(key), dict):
            summary[key] = {}
        summary = summary[key]
    summary[keys[-1]] = value


def _records(file: Path) -> Iterator[bytes]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise AnalysisError(f"{file} cannot be read ({error.strerror}): fix it.") from error
    if data[: len(MAGIC)] != MAGIC:
        raise AnalysisError(
            f"{file} is not a W&B file (it begins with {data[:4]!r}): give a .wandb file or a "
            "folder "
            "that holds some."
        )
    at, whole = HEADER, b""
    while at + RECORD_HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < RECORD_HEADER:
            at += left
            continue
        checksum = int.from_bytes(data[at : at + 4], "little")
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part = data[at + RECORD_HEADER : at + RECORD_HEADER + size]
        if len(part) < size or zlib.crc32(bytes([kind]) + part) != checksum:
            return  # cut off by a crash: the records before it are complete
        at += RECORD_HEADER + size
        whole = part if kind in (FULL, FIRST) else whole + part
        if kind in (FULL, LAST):
            yield whole
