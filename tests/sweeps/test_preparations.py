"""Data tasks: one for each budget's need of a sharded corpus, before what reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.plan_file import read_plan
from ledger.store import Ledger
from mor.config import DataConfig
from mor.data.needs import Need, prepared
from mor.data.prepare import prepare
from sweeps.backends.slurm.data_jobs import data_arrays, data_shape, wait_for_data
from sweeps.backends.slurm.jobs import arrays_of, nodes_left
from sweeps.config import DataJobs
from sweeps.resources import Shape
from sweeps.tasks import Kind, TaskGraph, tasks_of

BUDGETS = (3e9, 6e9, 1.2e10)


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    """A small study on many small files of JSON lines."""
    for i in range(30):
        rows = [{"text": f"file {i} row {j} " + "some words " * 20} for j in range(100)]
        (tmp_path / f"{i}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        *("-m", "study=quick", "size=9k", "model=vanilla,mor", "budget=3e9,6e9,1.2e10"),
        *("data=files", f"data.paths=[{tmp_path}/*.jsonl]", "data.sharded=true"),
        *("data.window_tokens=40000", "train.warmup_steps=5", "train.val_tokens=1000"),
        *("data.name=many", f"data.cache_dir={tmp_path / 'cache'}"),
    ]


@pytest.fixture
def planned(sweep: Callable, settings: list[str], tmp_path: Path) -> Callable[..., TaskGraph]:
    """The tasks of the study, as workers read them from its plan."""

    def plan(*more: str) -> TaskGraph:
        ended = sweep(*settings, *more, "launch=local", "launch.max_hours=1e9", timeout=600)
        assert ended.returncode == 0, ended.stderr
        [file] = tmp_path.glob("studies/quick/launches/*/plan.json")
        return tasks_of(read_plan(file), Ledger(tmp_path / "runs"))

    return plan


@pytest.mark.slow
def test_each_task_comes_after_the_tokens_that_it_reads(planned, tmp_path: Path) -> None:
    graph = planned()
    data = [task for task in graph if task.is_data]
    assert [task.target for task in data] == sorted(task.target for task in data)
    assert 1 < len(data) <= len(BUDGETS)
    assert [task.depends_on for task in data[1:]] == [(task.task_id,) for task in data[:-1]]
    by_id = {task.task_id: task for task in data}
    for task in graph:
        if task.kind in (Kind.SEGMENT, Kind.RUN):
            assert task.data is not None
            steps = task.config.budget  # a larger budget never needs fewer tokens
            smaller = [t for t in graph if t.data and t.config.budget <= steps]
            assert all(by_id[str(t.data)].target <= by_id[task.data].target for t in smaller)
            assert task.data in graph.before([task.task_id])
    assert all(task.finished(Ledger(tmp_path / "runs")) for task in data)
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 6
    _jobs_wait_for_data(graph)


def _jobs_wait_for_data(graph: TaskGraph) -> None:
    """On a cluster, where nothing of it is done."""

    def shape(task):
        return data_shape(DataJobs(cpus=3)) if task.is_data else Shape(1, 0, 1, 1)

    open_graph = TaskGraph(
        type(t)(**{**t.to_dict(), "status": "planned", "folder": t.folder, "kind": t.kind,
                   "depends_on": t.depends_on})
        for t in graph
    )  # fmt: skip
    nodes = nodes_left(open_graph, shape, {})
    data = data_arrays((n for n in nodes if n.task.is_data), {})
    assert [array.shape.cpus_per_task for array in data] == [3] * len(data)
    arrays = arrays_of((n for n in nodes if not n.task.is_data), {}, 0.0, 100)
    wait_for_data(arrays, data, {})
    for number, array in enumerate(data):
        array.array_id = f"d{number}"
    assert [a.dependency() for a in data] == [
        None,
        *(f"afterok:d{n}" for n in range(len(data) - 1)),
    ]
    jobs = {name: str(a.array_id) for a in data for name in a.units[0].tasks}
    for array in arrays:
        if array.parent:
            array.parent.array_id = "p"
        wanted = {f"afterok:{jobs[str(n.data)]}" for u in array.units for n in u.nodes}
        assert wanted <= set(str(array.dependency()).split(","))


def test_the_plan_says_what_is_missing(sweep, settings: list[str], tmp_path: Path) -> None:
    assert (
        sweep(*settings, "launch=plan", f"launch.plan_file={tmp_path / 'p.json'}").returncode == 0
    )
    plan = json.loads((tmp_path / "p.json").read_text())
    entries = plan["data"]
    assert [entry["status"] for entry in entries] == ["planned"] * len(entries)
    assert plan["totals"]["data"]["missing_tokens"] == max(e["missing"] for e in entries) > 0
    assert {run["data"] for run in plan["runs"]} == {entry["data_id"] for entry in entries}
    [fingerprint] = {entry["fingerprint"] for entry in entries}
    data = DataConfig(
        name="many", kind="files", sharded=True, paths=(f"{tmp_path}/*.jsonl",),
        window_tokens=40000, fingerprint=fingerprint, cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    prepare(data, False, Need(entries[0]["tokens"], entries[0]["val_tokens"]))
    assert prepared(data).missing(Need(entries[0]["tokens"])) == 0
    assert (
        sweep(*settings, "launch=plan", f"launch.plan_file={tmp_path / 'p.json'}").returncode == 0
    )
    after = json.loads((tmp_path / "p.json").read_text())["data"]
    assert after[0]["status"] == "done"
    assert after[-1]["missing"] < entries[-1]["missing"]


def test_packed_corpora_have_no_data_task(sweep, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    assert sweep("-m", "study=quick", "launch=plan", f"launch.plan_file={file}").returncode == 0
    plan = json.loads(file.read_text())
    assert "data" not in plan
    assert all("data" not in run for run in plan["runs"])
