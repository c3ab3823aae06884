"""Forecast files: written once, with digests of the points and of themselves.

`forecasts/<UTC time>-<digest>.json` in a study's folder. `points` has a digest for each point that
the forecast rests on, so that a later reader sees which are new, and which have changed since.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError
from analysis.files import make_folder, write_whole
from analysis.forecast.predict import Best, Forecast, Gap, Run
from analysis.points.table import IDENTITY, PointSet, curve_of

SCHEMA = 1
FOLDER = "forecasts"
NUMBERS = ("params", "tokens", "loss", "budget")


def digests(table: pd.DataFrame) -> dict[str, str]:
    """A digest of each point's numbers by its name."""
    found: dict[str, str] = {}
    named = table.assign(curve=curve_of(table), name=names_of(table))
    for row in named.to_dict("records"):
        numbers = [row["curve"], *(f"{float(row[key]):.12g}" for key in NUMBERS)]
        found[row["name"]] = _digest(numbers)[:16]
    return found


def names_of(table: pd.DataFrame) -> list[str]:
    """The name of each point: its run id, else what identifies the experiment."""
    identity = [name for name in IDENTITY if name in table and name != "curve"]
    named = table.assign(curve=curve_of(table))
    found = []
    for row in named.to_dict("records"):
        run_id = row.get("run_id")
        found.append(str(run_id) if not pd.isna(run_id) else "|".join(
            f"{row[key]:.6g}" if isinstance(row[key], float) else str(row[key])
            for key in ("curve", *identity)
        ))  # fmt: skip
    return found


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def content_of(done: Forecast, points: PointSet, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a file holds but its own digest."""
    return {
        "schema": SCHEMA,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "asked": dict(asked),
        "level": done.level,
        "predictions": [asdict(row) for row in done.best],
        "gaps": [asdict(row) for row in done.gaps],
        "runs": [asdict(row) for row in done.runs],
        "source": points.source,
        "convention": points.convention,
        "data_fingerprint": points.distinct("data_fingerprint"),
        "loss": points.loss,
        "params": points.params,
        "points": digests(points.table),
        "warnings": [warning.text for warning in done.warnings],
    }


def write(content: dict[str, Any], folder: Path) -> Path:
    """The file of a forecast. Raises AnalysisError where the folder cannot be made."""
    make_folder(folder)
    content = json.loads(json.dumps(content))  # as it is read back: lists, no tuples
    digest = _digest(content)
    stamp = datetime.fromisoformat(content["made"]).strftime("%Y%m%d-%H%M%S")
    path = folder / f"{stamp}-{digest[:8]}.json"
    write_whole(path, json.dumps({**content, "digest": digest}, indent=1) + "\n")
    return path


def read(path: Path) -> tuple[dict[str, Any], Forecast]:
    """A forecast as it was written. Raises AnalysisError for a file that is none, is of another
    version, or was changed since."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise AnalysisError(
            f"{path} cannot be read as a forecast ({error}): name another."
        ) from error
    if not isinstance(content, dict) or "predictions" not in content:
        raise AnalysisError(f"{path} is not a forecast: name a file that `forecast` wrote.")
    if content.get("schema") != SCHEMA:
        raise AnalysisError(
            f"{path} has schema {content.get('schema')} and this version reads {SCHEMA}: use the "
            "version that wrote it."
        )
    digest = content.pop("digest", None)
    if digest != _digest(content):
        raise AnalysisError(
            f"{path} was changed after it was written (its digest does not match): restore it from "
            "a copy, or leave it out; a forecast that was edited is not scored."
        )
    best = tuple(Best(**_ends(row)) for row in content["predictions"])
    gaps = tuple(Gap(**_ends(row)) for row in content["gaps"])
    runs = tuple(Run(**_ends(row)) for row in content["runs"])
    return content, Forecast(content["level"], best, gaps, runs)


def _ends(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in row.items()}


def files_of(study: Path) -> list[Path]:
    """The forecasts of a study, oldest first."""
    return sorted((study / FOLDER).glob("*.json"))
