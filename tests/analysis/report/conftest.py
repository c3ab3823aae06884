"""A study with all that a page can show: costs, speeds, routing, a failed and a pending run."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.fits.isoflop import fit_isoflop
from analysis.points.load import load_points
from analysis.points.table import NUMBERS, PointSet, Wanted
from analysis.report.page import write_report
from tests.analysis.conftest import build_store, optimal_size, study_table

HOSTILE = "</script><script>throw 1</script>"
WANTED = Wanted(NUMBERS, ("trunk",))


def routing_of(number: int = 3) -> dict[str, Any]:
    """The form that a run's validation writes."""
    bins = [[10, 30, 5, 0], [0, 20, 25, 0], [0, 5, 40, 1]][:number]
    return {
        "rule": "causal",
        "tokens": 4096,
        "mean_depth": 2.05,
        "depth_share": [0.31, 0.33, 0.36],
        "dead_token_ratio": 0.125,
        "sampling_accuracy": [None, 0.93, 0.91],
        "max_violation": 0.04,
        "entropy": 1.09,
        "score_histogram": {
            "edges": [0.0, 0.25, 0.5, 0.75, 1.0],
            "selected": bins,
            "unselected": [[0, 0, 0, 0], [9, 8, 0, 0], [20, 3, 1, 0]][:number],
        },
        "nll_by_depth": [2.6, 2.3, 2.1],
        "sample": {"text": ["d", "e", "f", HOSTILE], "depth": [1, 2, 3, 3]},
    }


def build(root: Path, gap: float = 0.05, noise: float = 0.004) -> Path:
    """Vanilla and a mor that is `gap` nats better at every point; returns the study's folder."""
    table = study_table(noise=noise)
    table["loss"] = table["loss"] - gap * (table["model"] == "mor")
    store = build_store(root, table)
    for file in store.glob("*/result.json"):
        result = json.loads(file.read_text())
        exact = result["budget"] * (3.3 if result["model"] == "mor" else 3.0)
        result |= {
            "flops": {"paper": result["budget"], "exact": exact, "6nd": exact},
            "throughput": {"device": "cpu", "flops_per_s": 1e9},
            "versions": {"python": "3.11.7", "torch": "2.13.0"},
            "finished": "2026-03-04T05:06:07+00:00",
            "trunk": f"{result['model']}-{result['size']}-trunk-aaaa",
        }
        if result["model"] == "mor":
            result["routing"] = routing_of()
        file.write_text(json.dumps(result))
    runs = [plan_run(row) for row in table.to_dict("records")]
    failed = {**runs[0], "run_id": "vanilla-3k-1e+10-9"}
    planned = {**runs[0], "run_id": "vanilla-3k-1e+10-8"}
    (store / failed["run_id"]).mkdir()
    status = {"state": "failed", "error": "no room on the disk"}
    (store / failed["run_id"] / "status.json").write_text(json.dumps(status))
    folder = root / "studies" / "first"
    (folder / "launches" / "20260304-050607-abcdef").mkdir(parents=True)
    plan = {"study": "first", "gpu": "cpu", "runs": [*runs, failed, planned], "segments": []}
    (folder / "plan.json").write_text(json.dumps({"schema": 1, **plan, "runs_dir": "runs"}))
    return folder


def log_curves(store: Path, models: tuple[str, ...] = ("mor",)) -> None:
    """Training and validation on the way of the models' trunks, on the law of the study's points,
    and bits per byte (a byte a token) in all results."""
    sizes = {(r["model"], r["size"]): r["params"] for r in study_table().to_dict("records")}
    for (model, size), params in sizes.items():
        if model in models:
            folder = store / f"{model}-{size}-trunk-aaaa"
            folder.mkdir()
            lines = []
            for i, spent in enumerate(np.geomspace(1e9, 1e12, 61)):
                loss = 2.0 + 0.03 * np.log(params / optimal_size(spent)) ** 2
                place = {"step": i, "tokens": spent / (6 * params), "spent": spent}
                lines.append({**place, "loss": loss - 0.01})
                if i % 3 == 0:
                    lines.append({**place, "val_nll_causal": loss, "val_nll_topk": loss - 0.5})
            (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    for file in store.glob("*/result.json"):
        result = json.loads(file.read_text())
        losses = {"val_nll_causal": "val_bpb_causal", "val_nll_topk": "val_bpb_topk"}
        for nats, bits in losses.items():
            result["loss"][bits] = result["loss"][nats] / math.log(2)
        file.write_text(json.dumps(result))


def plan_run(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        "run_id": row["run_id"],
        "model": row["model"],
        "size": row["size"],
        "budget": row["budget"],
        "seed": 0,
        "flops": {"exact": row["budget"] * (3.3 if row["model"] == "mor" else 3.0)},
        "gpu_hours": row["budget"] * 1e-12,
    }


def load(folder: Path) -> PointSet:
    return load_points(folder, wanted=WANTED)


def write(folder: Path, **options: Any) -> Path:
    points = load(folder)
    result = fit_isoflop(points.table, resamples=200)
    return write_report(folder / "report.html", result, points, **options)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the whole study; only read by tests."""
    root = tmp_path_factory.mktemp("report")
    folder = build(root)
    log_curves(root / "runs")
    return write(folder, command="python -m analysis report x")
