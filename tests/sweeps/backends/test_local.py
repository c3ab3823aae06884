"""`launch=local` for real: a pool of submitit jobs, skipping, sharing, dying workers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mor.config import ConfigError, DataConfig
from mor.data.fingerprint import fingerprint
from sweeps.backends.local import refuse_too_long
from sweeps.config import ClusterConfig, LaunchConfig
from sweeps.plan import build_plan
from tests.interrupts import heard
from tests.sweeps.conftest import REPO
from tests.sweeps.store import Store

STUDY = ["-m", "study=quick", "size=9k", "train.val_tokens=1024", "train.warmup_budget=2e8"]


def results(runs: Path) -> dict[str, dict]:
    return {p.parent.name: json.loads(p.read_text()) for p in sorted(runs.glob("*/result.json"))}


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, str(REPO / "sweep.py"), *arguments),
        *(f"runs_dir={tmp_path / 'runs'}", f"studies_dir={tmp_path / 'studies'}"),
    ]

    return subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=heard,
    )  # fmt: skip


def test_a_study_trains_once_is_skipped_and_grows(sweep, tmp_path):
    study = [*STUDY, "model=vanilla,mor,mor_token", "budget=3e8,6e8"]
    ended = sweep(*study)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert "python -m analysis report studies/quick" in ended.stdout
    first = results(tmp_path / "runs")
    assert len(first) == 6
    for result in first.values():
        assert result["status"] == "done"
        # a budget of n steps is spent to within half a step; the share is small at real sizes
        step = result["flops"]["spent"] / result["steps"]
        assert abs(result["flops"]["spent"] - result["budget"]) <= 0.75 * step
    trunks = list((tmp_path / "runs").glob("*-trunk-*"))
    assert len(trunks) == 3

    again = sweep(*study)
    assert again.returncode == 0, again.stderr
    assert "all 6 runs of study quick are done already" in again.stdout
    assert results(tmp_path / "runs") == first

    larger = sweep(*STUDY, "model=mor", "budget=3e8,6e8,1.2e9")
    assert larger.returncode == 0, larger.stderr + larger.stdout
    grown = results(tmp_path / "runs")
    assert {name: grown[name] for name in first} == first
    [new] = grown.keys() - first.keys()
    assert new.startswith("mor-9k-1.2e9-")
    assert len(list((tmp_path / "runs").glob("*-trunk-*"))) == 3  # the same trunk went on

    status = subprocess.run(
        [sys.executable, "-m", "sweeps", "status", "quick", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=True, env=_importable(),
    )  # fmt: skip
    rows = json.loads(status.stdout)["runs"]
    assert {row["state"] for row in rows} == {"done"}
    assert len(rows) == 7  # a narrower command does not shrink the study


@pytest.mark.parametrize("threads", [1, 3])
def test_a_run_of_several_threads_needs_less_time(tmp_path, threads):
    store = Store(tmp_path, [1e12])
    runtime = replace(store.plan.runs[0].config.runtime, threads=threads)
    configs = [replace(run.config, runtime=runtime) for run in store.plan.runs]
    plan = build_plan("s", configs, store.ledger, ClusterConfig("cpu", 0.3))
    hours = plan.totals()["remaining"]["gpu_hours"] / threads / 2
    refuse_too_long(plan, LaunchConfig(max_hours=hours * 1.001), workers=2)
    with pytest.raises(ConfigError, match="max_hours"):
        refuse_too_long(plan, LaunchConfig(max_hours=hours * 0.999), workers=2)


def test_runs_are_scored_once_each_and_again_where_the_tasks_change(sweep, tmp_path):
    (tmp_path / "mine").mkdir()
    tasks, other = tmp_path / "mine" / "own.jsonl", tmp_path / "mine" / "other.yaml"
    tasks.write_text('{"text": "import os"}')
    study = [*STUDY, "model=vanilla,mor", "budget=3e8", f"study.evaluate={tasks.parent}"]
    assert sweep(*STUDY, "model=vanilla", "budget=3e8").returncode == 0
    trained = results(tmp_path / "runs")
    ended = sweep(*study)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert {**results(tmp_path / "runs"), **trained} == results(tmp_path / "runs")

    def scored() -> dict[str, str]:
        files = (tmp_path / "runs").glob("*/evaluations/mine.json")
        return {file.parents[1].name: file.read_text() for file in files}

    first = scored()
    assert first.keys() == results(tmp_path / "runs").keys()
    for text in first.values():
        assert json.loads(text)["git_commit"]
    again = sweep(*study)
    assert again.returncode == 0, again.stderr
    assert "all 2 runs of study quick are done already" in again.stdout
    assert scored() == first

    other.write_text("include: nowhere.yaml")  # every evaluation fails, no run does
    broken = sweep(*study)
    assert broken.returncode == 2
    assert "2 evaluations are not" in broken.stderr
    assert "Traceback" not in broken.stdout + broken.stderr
    assert scored() == first
    status = subprocess.run(
        [sys.executable, "-m", "sweeps", "status", "quick", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=True, env=_importable(),
    )  # fmt: skip
    told = json.loads(status.stdout)
    assert {row["state"] for row in told["runs"]} == {"done"}
    assert {row["state"] for row in told["evaluations"]} == {"failed"}

    other.unlink()
    tasks.write_text('{"text": "import sys"}')
    retried = subprocess.run(
        [sys.executable, "-m", "sweeps", "retry", "quick"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=_importable(),
    )  # fmt: skip
    assert retried.returncode == 0, retried.stderr + retried.stdout
    assert scored().keys() == first.keys()
    assert set(scored().values()).isdisjoint(first.values())


def _importable() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPO)}


def test_two_launches_beside_each_other_train_each_run_once(tmp_path):
    study = [*STUDY, "model=vanilla,recursive,mor", "budget=4e8,8e8"]
    launches = [start(tmp_path, *study) for _ in range(2)]
    for launch in launches:
        output, _ = launch.communicate(timeout=240)
        assert launch.returncode == 0, output
    found = results(tmp_path / "runs")
    assert len(found) == 6
    for folder in (tmp_path / "runs").iterdir():
        status = json.loads((folder / "status.json").read_text())
        segments = 2 if "-trunk-" in folder.name else 1
        assert status["attempt"] == segments, folder.name
        steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()]
        assert steps == sorted(set(steps))


def workers_of(launch: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train: the grandchildren that submitit started."""
    below = psutil.Process(launch.pid).children(recursive=True)
    return [p for p in below if "submitit.core._submit" in " ".join(p.cmdline())]


def test_a_killed_worker_is_replaced_and_the_numbers_are_the_same(sweep, tmp_path):
    study = [*STUDY, "model=vanilla,mor", "budget=2e9", "runtime.checkpoint_s=0.3"]
    whole = sweep(*study, f"runs_dir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stdout
    launch = start(tmp_path, *study)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "runs").glob("*/checkpoints/step-*/meta.json")):
        assert launch.poll() is None, launch.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed = [p for p in workers_of(launch) if not p.children()]
    assert killed
    os.kill(killed[0].pid, signal.SIGKILL)
    output, _ = launch.communicate(timeout=240)
    assert launch.returncode == 0, output
    a, b = results(tmp_path / "whole"), results(tmp_path / "runs")
    assert {name: r["loss"] for name, r in a.items()} == {name: r["loss"] for name, r in b.items()}
    attempts = [
        json.loads(path.read_text())["attempt"]
        for path in (tmp_path / "runs").glob("*/status.json")
    ]
    assert max(attempts) >= 2


def test_ctrl_c_checkpoints_and_the_same_command_goes_on(sweep, tmp_path):
    study = [*STUDY, "model=mor", "budget=6e10"]  # many seconds after its first step
    launch = start(tmp_path, *study)
    deadline = time.monotonic() + 300
    while not any(f.stat().st_size for f in (tmp_path / "runs").glob("*/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    launch.send_signal(signal.SIGINT)
    output, _ = launch.communicate(timeout=60)
    assert "Traceback" not in output
    assert not results(tmp_path / "runs")
    assert list((tmp_path / "runs").glob("*/checkpoints/step-*/meta.json"))
    again = sweep(*study)
    assert again.returncode == 0, again.stdout
    [log] = (tmp_path / "runs").glob("*-trunk-*/log.txt")
    assert "resumed from step-" in log.read_text()
    assert re.search(r"step \d+: loss \d\.\d+, .* FLOPs, \d+ tokens/s", log.read_text())


def test_sigterm_stops_the_workers_with_the_launch(tmp_path):
    launch = start(tmp_path, *STUDY, "model=mor", "budget=2e10")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "runs").glob("*/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = workers_of(launch)
    assert workers
    launch.terminate()
    launch.communicate(timeout=60)
    psutil.wait_procs(workers, timeout=20)
    assert not [w for w in workers if w.is_running() and w.status() != psutil.STATUS_ZOMBIE]
    assert not results(tmp_path / "runs")


def test_a_trunk_that_diverges_fails_its_runs_by_name(sweep, tmp_path):
    ended = sweep(*STUDY, "model=vanilla", "budget=3e8,6e8", "train.lr=1e30", "train.clip=1e30")
    assert ended.returncode == 2
    assert "diverged vanilla-9k-trunk-" in ended.stdout
    assert "2 runs diverged" in ended.stderr
    assert "--diverged" in ended.stderr
    assert "analysis report" not in ended.stdout  # nothing is done
    status = subprocess.run(
        [sys.executable, "-m", "sweeps", "status", "quick", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=True, env=_importable(),
    )  # fmt: skip
    assert {row["state"] for row in json.loads(status.stdout)["runs"]} == {"diverged"}


def test_a_diverged_run_is_reported_with_its_log_and_not_tried_again(sweep, tmp_path):
    study = [*STUDY, "model=vanilla", "budget=3e8", "train.clip=1e30", "train.branch=false"]
    ended = sweep(*study, "train.lr=1e-3,1e30")
    assert ended.returncode == 2
    assert "1 run diverged" in ended.stderr
    assert "diverged vanilla-9k-3e8-" in ended.stdout
    assert "log: " in ended.stdout
    found = results(tmp_path / "runs")
    assert sorted(result["status"] for result in found.values()) == ["diverged", "done"]
    again = sweep(*study, "train.lr=1e-3,1e30")
    assert results(tmp_path / "runs") == found
    assert again.returncode == 2


def test_a_run_that_fails_names_its_log_and_is_retried_by_the_next_launch(sweep, tmp_path):
    (tmp_path / "cache").mkdir()
    corpus = f"stdlib-{fingerprint(DataConfig())}"
    (tmp_path / "cache" / corpus).write_text("")  # in the corpus's way
    where = f"data.cache_dir={tmp_path}/cache"
    ended = sweep(*STUDY, where, "model=vanilla", "budget=3e8")
    assert ended.returncode == 2
    assert "1 run failed" in ended.stderr
    assert "log: " in ended.stdout
    assert "Traceback" not in ended.stdout
    assert re.findall(r"\[1/1\] \S+ (\w+)", ended.stdout) == ["failed"]
    again = sweep(*STUDY, "model=vanilla", "budget=3e8")
    assert again.returncode == 0, again.stderr
    assert re.findall(r"\[1/1\] \S+ (\w+)", again.stdout) == ["done"]


@pytest.mark.parametrize("model", ["mor", "mor_token"])
def test_one_run_in_this_process(model, sweep, tmp_path):
    single = ["study=quick", "size=9k", "train.val_tokens=1024", "train.warmup_budget=2e8"]
    ended = sweep(*single, f"model={model}", "budget=1e9")
    assert ended.returncode == 0, ended.stderr
    assert "validation loss" in ended.stdout
    [alone] = results(tmp_path / "runs").values()
    pooled = sweep("-m", *single, f"model={model}", "budget=1e9", f"runs_dir={tmp_path / 'pool'}")
    assert pooled.returncode == 0, pooled.stdout
    [in_pool] = results(tmp_path / "pool").values()
    assert alone["run_id"] == in_pool["run_id"]
    assert alone["loss"] == in_pool["loss"]
    scored = sweep(*single, f"model={model}", "budget=1e9", "study.evaluate=corpus")
    assert scored.returncode == 0, scored.stderr
    assert "corpus, bits per byte" in scored.stdout
    assert len(list((tmp_path / "runs").glob("*/evaluations/corpus.json"))) == 1


def test_ctrl_c_in_a_single_run_says_how_to_go_on(tmp_path):
    single = ["study=quick", "size=9k", "train.warmup_budget=2e8", "model=vanilla", "budget=2e10"]
    run = start(tmp_path, *single)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "runs").glob("*/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert "stopped by SIGINT" in output
    assert "type the same command again to go on" in output
    assert "Traceback" not in output
    [attempts] = (tmp_path / "runs").glob("*/attempts.jsonl")
    assert [json.loads(line)["cause"] for line in attempts.open()] == ["stopped"]
