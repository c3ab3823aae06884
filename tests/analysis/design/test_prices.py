"""What a run costs again: at the measured speed of its model and size, else as it was planned."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.compare.device_time import Measured
from analysis.design.grid import plan_grid
from analysis.design.prices import Price, prices
from ledger.plan_file import RunEntry
from tests.analysis.conftest import result_of
from tests.analysis.laws import law_table

EXACT, CHECKS, PLANNED = 4e12, 1e12, 1e10  # FLOPs of training and validations; FLOP/s


def entry(run_id: str, **more: object) -> dict[str, object]:
    """A run as a study's plan has it, priced at an assumed speed."""
    known = {
        "flops": {"exact": EXACT},
        "gpu_hours": (EXACT + CHECKS) / PLANNED / 3600,
        "own_exact_flops": EXACT / 4,
        "own_hours": (EXACT / 4 + CHECKS) / PLANNED / 3600,
        "validation_flops": CHECKS,
        "price": "assumed",
    }
    return RunEntry.from_dict({"run_id": run_id, "model": "mor", **known, **more}).to_dict()


def plan_of(folder: Path, *entries: dict[str, object], gpu: str = "cpu") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "plan.json"
    file.write_text(json.dumps({"schema": 1, "gpu": gpu, "runs": entries, "runs_dir": "runs"}))
    return file


def points(*sizes: tuple[str, float]) -> pd.DataFrame:
    rows = [{"run_id": name, "model": "mor", "params": params} for name, params in sizes]
    return pd.DataFrame(rows)


@pytest.fixture
def three(tmp_path):
    return plan_grid(plan_of(tmp_path, entry("a"), entry("b"), entry("c")))


def test_the_flops_that_a_price_pays_for_hold_the_validations(three):
    assert three["flops"].tolist() == pytest.approx([EXACT + CHECKS] * 3)


def test_runs_have_the_median_speed_of_their_size_where_one_is_measured(three):
    table = points(("a", 1e6), ("b", 1e6), ("c", 2e6))
    measured = {"a": Measured("cpu", EXACT / 2e9, EXACT), "b": Measured("cpu", EXACT / 4e9, EXACT)}
    found, unit = prices(table, measured, three)
    again = pytest.approx((EXACT + CHECKS) / 3e9 / 3600)
    assert (found["a"].hours, found["b"].hours) == (again, again)
    assert found["c"] == Price(float(three["gpu_hours"].iloc[0]), measured=False)
    assert [found[name].measured for name in "abc"] == [True, True, False]
    assert unit == "core-hours"


@pytest.mark.parametrize(
    ("gpu", "device", "measured"),
    [
        ("h100", "NVIDIA H100 80GB HBM3", True),
        ("h100", "NVIDIA A100-SXM4-80GB", False),
        ("h200", "NVIDIA H200", True),
        ("h200", "NVIDIA GH200 480GB", False),
        ("gh200", "NVIDIA GH200 480GB", True),
        ("l4", "NVIDIA L40S", False),
        ("rtx4090", "NVIDIA GeForce RTX 4090", True),
        ("h100", "cpu", False),
        ("", "cpu", False),
    ],
)
def test_a_speed_of_another_device_prices_nothing(tmp_path, gpu, device, measured):
    plan = plan_grid(plan_of(tmp_path, entry("a"), gpu=gpu))
    found, _ = prices(points(("a", 1e6)), {"a": Measured(device, 10.0, EXACT)}, plan)
    assert found["a"].measured is measured


def test_a_plan_without_parts_is_priced_by_the_flops_of_its_runs(tmp_path):
    bare = {"run_id": "a", "model": "mor", "flops": {"exact": EXACT}, "gpu_hours": 1.0}
    plan = plan_grid(plan_of(tmp_path, bare))
    found, _ = prices(points(("a", 1e6)), {"a": Measured("cpu", EXACT / 2e9, EXACT)}, plan)
    assert found["a"].hours == pytest.approx(EXACT / 2e9 / 3600)


def suggest(*arguments: object) -> dict:
    ended = CliRunner().invoke(app, ["suggest", *map(str, arguments), "--json"])
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)["models"][0]


def test_a_study_and_its_store_are_priced_in_hours_of_one_device(tmp_path):
    """Two devices a run: their seconds count twice."""
    table = law_table(noise=0.0003, sizes=5, budgets=3)
    entries = []
    for n, row in enumerate(table.to_dict("records")):
        run_id = f"mor-{n}"
        known = {"convention": "paper", "data_fingerprint": "d", "git_commit": None, "code": None}
        named = {"model": "mor", "run_id": run_id, "seed": 0, "size": f"s{n % 5}"}
        speed = {"device": "NVIDIA H100", "devices": 2, "flops_per_s": 4e9}
        result = {
            **result_of({**row, **known, **named}),
            "flops": {"exact": EXACT},
            "throughput": speed,
        }
        file = tmp_path / "runs" / run_id / "result.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(result))
        entries.append(entry(run_id))
    study = plan_of(tmp_path / "studies" / "first", *entries, gpu="h100").parent
    one = suggest(study, "--runs", 2)
    each = (EXACT + CHECKS) / 2e9 / 3600
    assert [run["cost"] for run in one["runs"]] == [pytest.approx(each)] * 2
    assert all(run["measured"] for run in one["runs"])
    assert (one["unit"], one["cost"]) == ("h100 GPU-hours", pytest.approx(2 * each))
    told = CliRunner().invoke(app, ["suggest", str(study)]).stdout
    assert "h100 GPU-hours at measured speeds" in told
    stored = suggest(tmp_path / "runs", "--runs", 1)
    assert stored["runs"][0]["cost"] == pytest.approx(EXACT / 2e9 / 3600)
    for file in (tmp_path / "runs").glob("*/result.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "throughput": {}}))
    planned = suggest(study, "--runs", 1)["runs"][0]
    assert planned["cost"] == pytest.approx((EXACT + CHECKS) / PLANNED / 3600)
    assert not planned["measured"]
    assert " at assumed speeds" in CliRunner().invoke(app, ["suggest", str(study)]).stdout
