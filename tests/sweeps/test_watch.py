"""What `status` says of a study: states from the ledger and Slurm, costs, speed, width."""

from __future__ import annotations

import io
import os
import re
import subprocess
import time
from collections import Counter
from dataclasses import replace

import pytest

from sweeps.board import board
from sweeps.commands.why import explain
from sweeps.launches import new_launch
from sweeps.watch import NO_ACCOUNTING, StudyView
from tests.sweeps.store import Store, fake_slurm, minutes_ago


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    def answers(squeue: str = "", sacct: str | None = ""):
        folder = fake_slurm(tmp_path, squeue, sacct)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return answers


def in_job(monkeypatch, job_id: str) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", job_id)


def test_states_of_the_ledger_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")  # no Slurm
    store = Store(tmp_path, [1e8, 2e8, 4e8])
    first, second, third = store.runs()
    trunk = store.segments()
    store.finish_segment(trunk[0])
    store.result(first)
    store.begin(second, claim=True, spent=5e7, target=2e8, loss=3.0, flops_per_s=1e8, step=200)
    store.begin(trunk[1], spent=1e8, target=1.6e8)  # no claim: it ended without a cause
    assert store.states() == {
        first: "done", second: "running", third: "planned",
        trunk[1]: "killed", trunk[2]: "planned",
    }  # fmt: skip
    log = store.begin(third)
    for cause in ("stopped", "failed", "disk full"):
        state = {"stopped": "stopped"}.get(cause, "failed")
        store.ledger.folder(third).write_status(task_id=third, state=state, error="words", target=1)
        log.end(1, cause)
        assert store.states()[third] == cause


@pytest.mark.parametrize("state", ["failed", "diverged"])
def test_what_earlier_launches_failed_at_has_not_failed_in_this_one(state, tmp_path):
    store = Store(tmp_path, [1e8, 2e8])
    run, waits = store.runs()
    trunk = store.segments()[1]
    earlier = store.launch

    def fail(task: str, cause: str = state) -> None:
        log = store.begin(task, state=state, error="words", launch_id=store.launch.launch_id)
        log.end(len(log.read()), cause, "words")

    def counted() -> dict[str, str]:
        file = store.launch.folder.plan_file
        look = StudyView(file, store.ledger, launch_id=store.launch.launch_id).look()
        return {row.name: row.state for row in [*look.rows, *look.segments]}

    fail(run)
    fail(trunk)
    found = counted()
    assert found == store.states()
    assert {found[run], found[trunk], found[waits]} == {state}
    store.launch = new_launch(store.plan, store.ledger, earlier.folder.study.path)
    assert set(counted().values()) == {"planned"}
    assert store.states() == found  # of the study, to which all launches belong
    fail(run, "disk full" if state == "failed" else state)
    assert counted() == {**dict.fromkeys(found, "planned"), run: store.states()[run]}
    fail(trunk)
    assert counted() == store.states()
    store.result(run, "diverged")  # it is not trained again
    store.launch = new_launch(store.plan, store.ledger, earlier.folder.study.path)
    assert counted()[run] == "diverged"


def test_a_store_that_may_only_be_read_shows_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")  # no Slurm
    store = Store(tmp_path, [1e8, 2e8])
    run, other = store.runs()
    log = store.begin(run)  # no claim: it ended without a cause
    written = log.path.read_bytes()
    lock = log.path.with_name(".attempts.lock")
    lock.unlink()
    lock.mkdir()  # as if the file system refused: root may write whatever the permissions say
    look = store.view().look()
    assert {row.name: row.state for row in look.rows} == {run: "killed", other: "planned"}
    lines = [line for line in explain(store.view(), store.view().tasks[run]) if "attempt 1" in line]
    assert [line.split()[5] for line in lines] == ["killed"]
    assert log.path.read_bytes() == written
    lock.rmdir()
    assert store.view().look().rows == look.rows
    assert log.read()[0].cause == "killed"


def test_a_size_without_a_speed_is_priced_at_that_of_the_nearest(tmp_path):
    store = Store(tmp_path, [1e10], sizes={"tiny": 16, "wide": 64, "wider": 128})
    assert store.view().remaining_hours(1) is None
    tiny, _, wider = store.runs()
    for run, speed in ((tiny, 1e8), (wider, 1e9)):
        store.begin(run, claim=True, target=1e10, flops_per_s=speed, step=200)
    flops = dict.fromkeys(("tiny", "wide", "wider"), 0.0)
    for task in store.view().tasks:
        flops[task.config.size.name] += task.exact_flops
    left = flops["tiny"] / 1e8 + (flops["wide"] + flops["wider"]) / 1e9
    assert store.view().remaining_hours(2) == pytest.approx(left / 2 / 3600)


def test_slurm_has_the_word_where_it_holds_a_run(tmp_path, monkeypatch, slurm):
    store = Store(tmp_path, [1e8], seeds=5)
    waits, preempted, lost, dead, cancelled = store.runs()
    in_job(monkeypatch, "8")
    log = store.begin(preempted, state="stopped")
    log.end(1, "stopped", "SIGTERM")
    in_job(monkeypatch, "9")
    store.begin(lost)
    in_job(monkeypatch, "10")
    store.begin(dead, claim=True)  # its claim is fresh, but its node is dead and the job waits
    monkeypatch.delenv("SLURM_JOB_ID")
    store.submitted({"7": [waits], "8": [preempted], "9": [lost], "10": [dead], "11": [cancelled]})
    start, end = int(minutes_ago(1)), int(time.time())
    slurm(
        "7|PENDING|Priority||N/A|10:00|main|(null)\n8|PENDING|Resources||N/A|10:00|main|(null)\n"
        "10|PENDING|BeginTime||N/A|10:00|main|(null)\n",
        f"8|PREEMPTED|{start}|{end}|0:0|n1\n9|OUT_OF_MEMORY|{start}|{end}|0:125|n1\n"
        f"10|NODE_FAIL|{start}|{end}|1:0|n1\n",
    )
    look = store.view().look()
    rows = {row.name: row for row in look.rows}
    assert rows[waits].state == "pending"
    assert rows[waits].reason == "Priority"
    assert (rows[preempted].state, rows[preempted].last_cause) == ("preempted", "preempted")
    assert rows[lost].state == "out of memory"
    assert (rows[dead].state, rows[dead].last_cause) == ("pending", "node failure")
    assert (tmp_path / "calls").read_text().count("squeue") == 1
    assert (tmp_path / "calls").read_text().count("sacct") == 1
    store.view().look()  # what was found out is kept: nothing is left to ask
    assert (tmp_path / "calls").read_text().count("sacct") == 1


def test_without_accounting_it_says_what_is_lost(tmp_path, monkeypatch, slurm):
    store = Store(tmp_path, [1e8])
    in_job(monkeypatch, "9")
    store.begin(store.runs()[0])
    monkeypatch.delenv("SLURM_JOB_ID")
    slurm("", None)
    look = store.view().look()
    assert look.notes == [NO_ACCOUNTING]
    assert look.rows[0].state == "killed"


def test_the_cost_is_corrected_by_the_measured_speed(tmp_path):
    store = Store(tmp_path, [1e8, 2e8])
    run = store.plan.runs[0]
    before = store.view().look().cost
    assert before.corrected is None
    assert before.planned == pytest.approx(store.plan.totals()["with_trunk_sharing"]["gpu_hours"])
    planned_speed = (run.flops["exact"] + run.validation_flops[0]) / (run.gpu_hours * 3600)
    store.begin(run.run_id, claim=True, step=99, flops_per_s=planned_speed / 2)
    assert store.view().look().cost.corrected is None  # too few steps to believe it
    store.ledger.folder(run.run_id).write_status(
        task_id=run.run_id, state="running", step=100, flops_per_s=planned_speed / 2
    )
    cost = store.view().look().cost
    assert cost.corrected == pytest.approx(2 * cost.planned, rel=1e-6)
    assert (cost.measured, cost.shapes) == (1, 1)


def test_ids_are_never_cut_and_lines_fit_the_window(tmp_path):
    store = Store(tmp_path, [1e8, 2e8])
    run, other = store.runs()
    status = {"spent": 1e7, "target": 1e8, "loss": 12.3456, "tokens_per_s": 123456.0}
    store.begin(run, claim=True, **status, flops_per_s=1e5, mfu=0.41, step=100)
    look = store.view().look()
    long = replace(look.rows[0], reason="ReqNodeNotAvail, UnavailableNodes:n[1-400]", node="n" * 30)
    look.rows.append(long)
    for width in (30, 80, 100, 300):
        lines = board(look, width).plain.splitlines()[1:]
        assert any(run in line for line in lines)
        assert any(other in line for line in lines)
        if width >= 80:
            assert max(map(len, lines)) <= width
    assert "41%" in board(look, 100).plain
    assert "41%" not in board(look, 30).plain
    short = board(look, 80, height=8).plain
    assert run in short  # what runs is shown before what waits
    assert re.search(r"\.\.\. and \d+ more", short)
    assert len(short.splitlines()) <= 8


def test_a_thousand_runs_read_each_file_twice_at_most(tmp_path, monkeypatch):
    """How long it takes: benchmarks/scale.py."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a thousand of them take a while
    store = Store(tmp_path, [1e8], seeds=1000)
    for i, run in enumerate(store.runs()):
        if i % 2:
            store.begin(run, state="stopped", spent=1e7).end(1, "stopped", "SIGTERM")
        else:
            store.result(run)
    read: Counter[str] = Counter()
    plain = io.open

    def counted(file, *args, **kwargs):
        read[str(file)] += 1
        return plain(file, *args, **kwargs)

    monkeypatch.setattr(io, "open", counted)  # what pathlib opens with
    board(store.view().look(), 100)
    assert len(read) >= 1000
    assert max(read.values()) <= 2, read.most_common(3)


def test_status_starts_without_the_heavy_imports(tmp_path):
    code = (
        "import sys, sweeps.__main__; "
        "bad = {'torch', 'hydra', 'submitit', 'wandb', 'pandas'} & set(sys.modules); "
        "assert not bad, bad"
    )
    import sys

    subprocess.run([sys.executable, "-c", code], check=True)
