"""Training curves for approach 1: finished points, or `metrics.jsonl` of the runs and trunks.

A line of `metrics.jsonl` holds step, loss (training, nats per token), tokens and spent (FLOPs
under the run's convention). Runs that share a trunk are one curve, the trunk's: it is the part that
all sizes train in the same way, while a cool-down lies lower by its own share and would zigzag
through the curve. Noise of single batches is reduced by means over windows of log compute.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.formatting import listing, plural
from analysis.points.table import curve_of
from ledger.folder import RunFolder

WINDOWS_A_DECADE = 8
NEEDED = ("tokens", "loss", "spent")


def from_points(table: pd.DataFrame) -> pd.DataFrame:
    """Each point at its budget, or at 6 N D where the source names no budget."""
    budget = table["budget"]
    return table.assign(compute=budget.where(budget.notna(), 6 * table["params"] * table["tokens"]))


def from_metrics(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Caution]]:
    """Smoothed curves of the trunks of the runs in `table`, or of runs without one; and warnings.

    Raises AnalysisError where the points are not runs, or not one of them has logged anything.
    """
    folders = [Path(source) for source in table["source"]]
    if not folders[0].is_dir():
        raise AnalysisError(
            "--curves metrics reads metrics.jsonl of runs and the points are from a file: give a "
            "run store, or --curves points."
        )
    parts, missing = [], []
    table = table.assign(curve=curve_of(table))
    named = {
        folder.parent / row["trunk"] if isinstance(row["trunk"], str) else folder: row
        for folder, row in zip(folders, table.to_dict("records"), strict=True)
    }
    for folder, row in named.items():
        lines = _read(RunFolder(folder).metrics_file)
        if lines is None:
            missing.append(folder.name)
            continue
        parts.append(
            _smooth(lines).assign(curve=row["curve"], model=row["model"], params=row["params"])
        )
    if not parts:
        raise AnalysisError(
            f"Not one of {plural(len(missing), 'run')} has a metrics.jsonl with tokens, loss and "
            f"spent ({listing(missing)}): use --curves points."
        )
    said = f"No curve for {plural(len(missing), 'run')} without metrics: {listing(missing)}."
    return pd.concat(parts, ignore_index=True), [Caution(Code.NO_METRICS, said)] if missing else []


def _read(file: Path) -> pd.DataFrame | None:
    """The usable lines; a line that was cut off by a crash is skipped, None without any."""
    if not file.is_file():
        return None
    rows = []
    for line in file.read_text().splitlines():
        try:
            content = json.loads(line)
            rows.append([float(content[name]) for name in NEEDED])
        except (ValueError, KeyError, TypeError):
            continue
    frame = pd.DataFrame(rows, columns=list(NEEDED), dtype=float)
    values = frame.to_numpy(float)
    frame = frame[(np.isfinite(values) & (values > 0)).all(axis=1)]
    return None if frame.empty else frame


def _smooth(lines: pd.DataFrame) -> pd.DataFrame:
    window = np.floor(WINDOWS_A_DECADE * np.log10(lines["spent"].to_numpy(float)))
    return lines.groupby(window).mean().rename(columns={"spent": "compute"})
