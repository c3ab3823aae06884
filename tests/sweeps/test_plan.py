"""Plans as `launch=plan` makes them: the paper's study, identity, sharing, speed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.store import Ledger
from sweeps.config import ClusterConfig
from sweeps.plan import build_plan
from sweeps.tables import totals_text
from tests.sweeps.store import Store

REPO = Path(__file__).parents[2]
FIELDS = [
    *("run_id", "model", "size", "budget", "convention", "n_params", "n_params_nonembedding"),
    *("unique_layers", "effective_layers", "tokens", "steps", "warmup_steps", "cooldown_steps"),
    *("stable_step", "flops", "gpu_hours", "status", "depends_on"),
]


@pytest.fixture
def plan(sweep, tmp_path):
    """The plan file of a command line."""

    def make(*arguments: str) -> dict:
        file = tmp_path / "plan.json"
        ended = sweep(*arguments, "launch=plan", f"launch.plan_file={file}")
        assert ended.returncode == 0, ended.stderr
        return json.loads(file.read_text())

    return make


def test_the_papers_study_is_36_runs_with_the_tokens_of_table_9(plan, paper_table):
    made = plan("-m", "study=paper")
    assert len(made["runs"]) == 36
    assert all(set(FIELDS) <= set(run) for run in made["runs"])
    by_point = {(r["model"], r["size"], r["budget"]): r for r in made["runs"]}
    for row in paper_table("table9_isoflop"):
        run = by_point[row["arch"], row["base"].lower(), float(row["flops_stated"])]
        mantissa = row["tokens"].split("e")[0]
        digits = len(mantissa.split(".")[1]) if "." in mantissa else 0
        assert round(run["tokens"] / 1e9, digits) == float(mantissa), row
        assert run["n_params_nonembedding"] == pytest.approx(float(row["n_nonemb"]), rel=0.015)
        assert run["flops"]["paper"] == pytest.approx(run["budget"], rel=2e-3)
    totals = made["totals"]
    shared, alone = totals["with_trunk_sharing"], totals["without_trunk_sharing"]
    # {2, 5, 16.5}e18 on one trunk cost 17.9e18 in place of 23.5e18
    assert shared["exact_flops"] / alone["exact_flops"] == pytest.approx(17.9 / 23.5, rel=1e-3)


def test_the_one_line_plans_the_papers_own_runs(plan):
    """The 5e18 runs of the one line and of study=paper are the same, with the same ids."""
    line = {run["run_id"] for run in plan("-m", "budget=5e18", "model=mor,vanilla")["runs"]}
    paper = {
        run["run_id"]
        for run in plan("-m", "study=paper")["runs"]
        if run["budget"] == 5e18 and run["model"] in ("mor", "vanilla")
    }
    assert len(line) == 8
    assert line == paper


def test_each_cooldown_depends_on_its_own_segment_only(plan):
    made = plan("-m", "study=paper", "model=mor", "size=360m")
    segments = {s["segment_id"]: s for s in made["segments"]}
    assert len(segments) == 3
    for run in made["runs"]:
        [needed] = run["depends_on"]
        assert segments[needed]["target_flops"] == pytest.approx(0.8 * run["budget"])
    chain = [s["depends_on"] for s in sorted(segments.values(), key=lambda s: s["target_flops"])]
    ends = sorted(segments, key=lambda s: segments[s]["target_flops"])
    assert chain == [[], [ends[0]], [ends[1]]]


def test_from_scratch_nothing_is_shared_and_ids_stay(plan):
    branched = plan("-m", "study=paper", "size=360m")
    scratch = plan("-m", "study=paper", "size=360m", "train.branch=false")
    assert [r["run_id"] for r in scratch["runs"]] == [r["run_id"] for r in branched["runs"]]
    assert scratch["segments"] == []
    assert scratch["totals"]["with_trunk_sharing"] == scratch["totals"]["without_trunk_sharing"]


def test_where_a_run_executes_is_not_its_identity(plan):
    a = plan("-m", "study=paper", "size=135m", "budget=2e18")
    b = plan(
        "-m", "study=paper", "size=135m", "budget=2000000000000000000", "runtime.micro_batch=64",
        "runtime.device=cpu", "cluster.gpu=a100", "data.cache_dir=elsewhere",
    )  # fmt: skip
    assert [r["run_id"] for r in a["runs"]] == [r["run_id"] for r in b["runs"]]
    for change in ("train.lr=1e-3", "seed=1", "train.precision=fp32", "flops.convention=exact"):
        c = plan("-m", "study=paper", "size=135m", "budget=2e18", change)
        assert not {r["run_id"] for r in a["runs"]} & {r["run_id"] for r in c["runs"]}, change


def test_any_key_is_an_axis(plan):
    made = plan("-m", "size=135m", "model=mor", "budget=2e18", "model.n_recursions=2,3,4")
    assert [run["unique_layers"] for run in made["runs"]] == [16, 12, 9]
    assert len({run["run_id"] for run in made["runs"]}) == 3
    made = plan("-m", "size=135m", "model=vanilla", "budget=2e18,5e18", "train.lr=1e-3,3e-3")
    assert len(made["runs"]) == 4
    assert made["totals"]["trunks"] == 2


def test_a_thousand_runs_are_planned_without_torch(tmp_path):
    """How long it takes: benchmarks/plan.py."""
    script = """
import runpy, sys
sys.argv = ["sweep.py", "-m", "study=paper", "launch=plan", "seed=" + sys.argv[1],
            "launch.plan_file=" + sys.argv[2], "runs_dir=" + sys.argv[3]]
try:
    runpy.run_path("sweep.py", run_name="__main__")
except SystemExit as end:
    assert not end.code
assert "torch" not in sys.modules
"""
    seeds = ",".join(str(i) for i in range(28))
    file = tmp_path / "plan.json"
    subprocess.run(
        [sys.executable, "-c", script, seeds, str(file), str(tmp_path / "runs")],
        cwd=REPO, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(json.loads(file.read_text())["runs"]) == 1008


@pytest.mark.parametrize("model", ["vanilla", "mor"])
def test_validations_are_in_the_price(plan, model):
    """At the end, and on the way of the run and of its trunk."""
    study = ["-m", "study=quick", f"model={model}", "size=9k", "budget=1.5e10,3e10"]
    bare, some = plan(*study), plan(*study, "train.eval_points=8")
    assert [run["run_id"] for run in bare["runs"]] == [run["run_id"] for run in some["runs"]]
    longer = plan(*study, "train.val_tokens=131072")  # twice as many: another run
    passes = {"vanilla": (1, 1), "mor": (4, 2)}[model]  # causal, top-k, at most 1, at most 2
    for one, more, twice in zip(bare["runs"], some["runs"], longer["runs"], strict=True):
        of_end = twice["gpu_hours"] - one["gpu_hours"]
        tokens = one["tokens"]
        rate = (one["gpu_hours"] - of_end) / tokens  # of a training token
        assert of_end == pytest.approx(65_536 * passes[0] * rate / 3, rel=1e-6)
        on_the_way = more["gpu_hours"] - one["gpu_hours"]
        assert on_the_way == pytest.approx(7 * 65_536 * passes[1] * rate / 3, rel=1e-6)
    hours = [made["totals"]["with_trunk_sharing"]["gpu_hours"] for made in (bare, some)]
    points = (hours[1] - hours[0]) / (65_536 * passes[1] * rate / 3)
    assert 7 < points < 14  # of two budgets on one trunk: each only once


def test_a_trunk_goes_on_from_the_plateau_of_a_budget_that_is_not_planned(tmp_path):
    store = Store(tmp_path, [1e8])
    [smaller] = store.plan.segments
    larger = replace(smaller.config, budget=2e8)
    machine = ClusterConfig("cpu", 0.3)

    def totals():
        return build_plan("s", [larger], Ledger(store.ledger.runs_dir), machine).totals()

    assert (totals()["begun"], totals()["done"]) == (0, 0)
    assert totals()["remaining"]["gpu_hours"] == totals()["with_trunk_sharing"]["gpu_hours"]
    store.finish_segment(smaller.segment_id)
    found = totals()
    saved = found["with_trunk_sharing"]["exact_flops"] - found["remaining"]["exact_flops"]
    assert found["begun"] == 1
    assert saved == pytest.approx(smaller.exact_flops)
    assert "left" in totals_text(build_plan("s", [larger], store.ledger, machine))
