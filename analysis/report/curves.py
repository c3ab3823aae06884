"""Learning curves of a study's runs and trunks: a panel for each model, a colour for each size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.formatting import compute, plural
from analysis.points.curves import damaged_lines
from analysis.points.series import ordered
from analysis.points.table import PointSet, curve_of
from analysis.report.charts import SHAPES, Chart, short
from ledger.curves import Curve
from ledger.folder import RunFolder
from ledger.result import LOSS_KEYS

MOST = 200  # curves on a page
COLOURS = 8
Point = tuple[float, float]


@dataclass(frozen=True)
class Learning:
    """The chart, and what is to be said of it."""

    chart: Chart
    said: str


@dataclass(frozen=True)
class _Line:
    """One run or trunk: what it has logged, and the legend entries of it."""

    name: str
    model: str
    size: str
    training: list[Point]  # (FLOPs, nats per token)
    validation: list[Point]
    damaged: int  # lines of metrics.jsonl that are left out


def learning(points: PointSet, bits: float | None) -> Learning | None:
    """The curves of the points' folders; None where none of them has logged anything.

    `bits`: bits per byte of one nat per token, where that is known.
    """
    folders = _folders(points)
    key = LOSS_KEYS.get(points.loss.removeprefix("bpb_"), LOSS_KEYS["causal"])
    read = [_read(folder, row, key) for folder, row in list(folders.items())[:MOST]]
    lines = [line for line in read if line.training or line.validation]
    if not lines:
        return None
    sizes = dict.fromkeys(row["size"] for row in folders.values())
    legend = [
        {"key": f"size {size}", "label": size, "series": i % COLOURS, "shape": SHAPES[i % 5]}
        for i, size in enumerate(sizes)
    ]
    entries = {entry["label"]: entry for entry in legend}
    panels = []
    for model in ordered(list(dict.fromkeys(line.model for line in lines))):
        mine = [line for line in lines if line.model == model]
        top = _top([y for line in mine for _, y in (*line.training, *line.validation)])
        items = [item for line in mine for item in _items(line, entries[line.size], top, bits)]
        panels.append({"title": model, "items": items})
    convention = f", {points.convention} convention" if points.convention else ""
    chart = {
        "x": {"label": f"FLOPs spent{convention}", "log": True, "form": "compute"},
        "y": {"label": "Loss (nats per token)", "form": "fixed"},
        "views": [{"name": "", "panels": panels, "legend": legend, "other": []}],
    }
    damaged = damaged_lines({line.name: line.damaged for line in read})
    said = [_said(lines, len(folders), bits), *(one.text for one in damaged)]
    return Learning(chart, " ".join(said))


def _said(lines: list[_Line], folders: int, bits: float | None) -> str:
    said = "Dashed: training loss, means over windows of log compute. "
    validated = sum(bool(line.validation) for line in lines)
    if validated:
        said += f"Marks: validations on the way, of {plural(validated, 'run')} and trunks. "
    else:
        said += "No run was validated on the way: train.eval_points=20 does so. "
    said += "A trunk is one line, and each cool-down another that begins at its end."
    if bits:
        said += f" One nat per token is {bits:.4f} bits per byte of the held-out text."
    if folders > MOST:
        said += f" Shown are {MOST} of {folders}."
    return said


def _folders(points: PointSet) -> dict[Path, dict[Any, Any]]:
    """Trunks and runs that have a folder, each with a row of the table."""
    found: dict[Path, dict[Any, Any]] = {}
    table = points.table.assign(curve=curve_of(points.table))
    if "trunk" not in table:
        return found
    for row in table.to_dict("records"):
        folder = Path(str(row["source"]))
        row["size"] = str(row["size"]) if isinstance(row["size"], str) else f"{row['params']:.3g}"
        if isinstance(row["trunk"], str):
            found.setdefault(folder.parent / row["trunk"], row)
        found[folder] = row
    return {
        folder: row for folder, row in found.items() if RunFolder(folder).metrics_file.is_file()
    }


def _read(folder: Path, row: dict[Any, Any], key: str) -> _Line:
    curve = Curve().read_on(RunFolder(folder))
    both = curve.training, curve.validation(key)
    return _Line(folder.name, str(row["curve"]), row["size"], *both, curve.damaged)


def _top(losses: list[float]) -> float:
    """What lies above is not drawn: the first steps would flatten everything else."""
    low, usual = float(np.min(losses)), float(np.quantile(losses, 0.9))
    return low + 1.6 * max(usual - low, 1e-9)


def _items(
    line: _Line, entry: dict[str, Any], top: float, bits: float | None
) -> list[dict[str, Any]]:
    style = {"keys": [entry["key"]], "series": entry["series"], "shape": entry["shape"]}
    found: list[dict[str, Any]] = []
    for points, dash in ((line.training, True), (line.validation, False)):
        shown = [[short(x), short(y)] for x, y in points if y <= top]
        if len(shown) > 1:
            found.append({"kind": "line", **style, "points": shown, "dash": dash})
    for x, y in line.validation:
        if y <= top:
            told = f"loss {y:.4f}" + (f", {bits * y:.4f} bits per byte" if bits else "")
            text = [line.name, f"{told}, validated at {compute(x)} FLOPs"]
            found.append({"kind": "mark", **style, "x": short(x), "y": short(y), "text": text})
    return found
