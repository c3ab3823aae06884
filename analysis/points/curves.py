"""Curves for approach 1: finished points, or what `metrics.jsonl` of the runs and trunks holds.

A line of `metrics.jsonl` holds step, tokens, spent (FLOPs under the run's convention), and loss
(training, nats per token) or, for a validation on the way, val_nll_causal and val_nll_topk. Runs
that share a trunk are one curve, the trunk's: it is the part that all sizes train in the same way,
while a cool-down lies lower by its own share and would zigzag through the curve. Noise of single
batches is reduced by means over windows of log compute; validations are taken as they are.
"""

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.formatting import count, listing, plural
from analysis.points.table import curve_of
from ledger.curves import Curve
from ledger.folder import RunFolder
from ledger.ids import is_trunk
from ledger.metrics import read_metrics
from ledger.result import LOSS_KEYS

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
    parts, missing, damaged = [], [], {}
    for folder, row in _folders(table, "metrics").items():
        lines, damaged[folder.name] = _read(RunFolder(folder).metrics_file)
        if lines is None:
            missing.append(folder.name)
            continue
        parts.append(
            _smooth(lines).assign(curve=row["curve"], model=row["model"], params=row["params"])
        )
    if not parts:
        raise AnalysisError(
            f"Not one of {_kinds(map(Path, missing))} has a metrics.jsonl with tokens, loss and "
            f"spent ({listing(missing)}): use --curves points."
        )
    said = f"No curve for {_kinds(map(Path, missing))} without metrics: {listing(missing)}."
    cautions = [Caution(Code.NO_METRICS, said)] if missing else []
    return pd.concat(parts, ignore_index=True), cautions + damaged_lines(damaged)


def damaged_lines(damaged: dict[str, int]) -> list[Caution]:
    """What is to be said of lines that were left out, by the name of their folder."""
    hit = {name: number for name, number in damaged.items() if number}
    if not hit:
        return []
    lines = plural(sum(hit.values()), "line")
    said = f"Left out, as damaged: {lines} of metrics.jsonl of {listing(list(hit))}."
    return [Caution(Code.DAMAGED, said)]


def from_validation(table: pd.DataFrame, loss: str) -> tuple[pd.DataFrame, list[Caution]]:
    """Validations on the way of the trunks of the runs in `table`, or of runs without one, by the
    rule `loss` (causal | topk; as given: causal); and warnings. Without a trunk, a run's curve ends
    in its result. A model is left out where a size lacks them, as the lowest curve would then be
    that of another size.

    Raises AnalysisError where the points are not runs, or no model is left.
    """
    key = LOSS_KEYS.get(loss, LOSS_KEYS["causal"])
    rows, missing, damaged = [], [], {}
    folders = _folders(table, "validation")
    for folder, row in folders.items():
        curve = Curve().read_on(RunFolder(folder))
        damaged[folder.name] = curve.damaged
        found = [
            (float(one["tokens"]), float(one[key]), float(one["spent"]))
            for one in curve.validations
            if _positive(one.get("tokens"), one.get(key), one.get("spent"))
        ]
        if not found:
            missing.append(folder.name)
            continue
        if folder == Path(row["source"]):
            found.append((row["tokens"], row["loss"], row["budget"]))
        same = (row["curve"], row["model"], row["params"])
        rows += [(*same, *point) for point in found]
    columns = ["curve", "model", "params", "tokens", "loss", "compute"]
    curves = pd.DataFrame(rows, columns=columns)
    lacking = _lacking(table, curves)
    kept = curves[~curves["curve"].isin(lacking)]
    if kept.empty:
        some = f"Not one of {_kinds(folders)} was validated on the way ("
        if rows:
            some = f"Not all sizes of {_sizes(lacking)} were validated on the way (not "
            some += f"{len(missing)} of {_kinds(folders)}: "
        raise AnalysisError(
            f"{some}{listing(missing)}), and finished runs get no points any more: train new ones "
            "with train.eval_points=20 and another seed, as in seed=1, or use --curves points."
        )
    said = f"Left out, as not all of their sizes were validated on the way: {_sizes(lacking)}."
    cautions = [Caution(Code.NO_METRICS, said)] if lacking else []
    return kept, cautions + damaged_lines(damaged)


def _lacking(table: pd.DataFrame, curves: pd.DataFrame) -> dict[str, list[float]]:
    """The sizes of each curve that have fewer than two points on the way; no curve without any."""
    wanted = table.assign(curve=curve_of(table))[["curve", "params"]].drop_duplicates()
    points = curves.groupby(["curve", "params"])["compute"].nunique()
    found: dict[str, list[float]] = {}
    for curve, params in wanted.sort_values(["curve", "params"]).itertuples(index=False):
        if points.get((curve, params), 0) < 2:
            found.setdefault(str(curve), []).append(params)
    return found


def _sizes(lacking: dict[str, list[float]]) -> str:
    each = [f"{curve} ({listing(map(count, sizes))})" for curve, sizes in lacking.items()]
    return listing(each)


def _kinds(folders: Iterable[Path]) -> str:
    """`15 trunks`, `3 runs`, `15 trunks and 3 runs`."""
    names = [folder.name for folder in folders]
    trunks = sum(map(is_trunk, names))
    each = ((trunks, "trunk"), (len(names) - trunks, "run"))
    return " and ".join(plural(number, noun) for number, noun in each if number)


def validated(table: pd.DataFrame, loss: str) -> pd.DataFrame | None:
    """The same for one model, where every size has a curve of two points or more; else None."""
    try:
        return from_validation(table, loss)[0]
    except AnalysisError:
        return None


def _folders(table: pd.DataFrame, curves: str) -> dict[Path, dict[Hashable, Any]]:
    """The folders that hold the curves, trunks before runs, each with one row of its points."""
    folders = [Path(str(source)) for source in table["source"]]
    if not folders[0].is_dir():
        raise AnalysisError(
            f"--curves {curves} reads metrics.jsonl of runs and the points are from a file: give "
            "a run store, or --curves points."
        )
    table = table.assign(curve=curve_of(table))
    return {
        folder.parent / row["trunk"] if isinstance(row["trunk"], str) else folder: row
        for folder, row in zip(folders, table.to_dict("records"), strict=True)
    }


def _positive(*values: object) -> bool:
    return all(isinstance(value, int | float) and 0 < value < np.inf for value in values)


def _read(file: Path) -> tuple[pd.DataFrame | None, int]:
    """The usable lines, None without any; and the number of damaged ones, which are left out."""
    lines, damaged = read_metrics(file)
    rows = []
    for content in lines:
        try:
            rows.append([float(content[name]) for name in NEEDED])
        except (ValueError, KeyError, TypeError):
            continue
    frame = pd.DataFrame(rows, columns=list(NEEDED), dtype=float)
    values = frame.to_numpy(float)
    frame = frame[(np.isfinite(values) & (values > 0)).all(axis=1)]
    return None if frame.empty else frame, damaged


def _smooth(lines: pd.DataFrame) -> pd.DataFrame:
    window = np.floor(WINDOWS_A_DECADE * np.log10(lines["spent"].to_numpy(float)))
    return lines.groupby(window).mean().rename(columns={"spent": "compute"})
