"""`launch=slurm` on a real Slurm that slurm/dev_cluster starts; skipped where there is none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.sweeps.conftest import REPO
from tests.sweeps.slurm.client import results, slurm, wait

pytestmark = pytest.mark.xdist_group("slurm")  # one cluster, one worker

STUDY = [
    *("-m", "study=quick", "size=9k", "train.val_tokens=1024", "train.warmup_budget=2e8"),
    *("launch=slurm", "launch.slurm.gpus_per_node=0", "launch.slurm.cpus_per_task=1"),
    "launch.slurm.timeout_min=20",
]


def test_submit_returns_at_once_and_the_study_finishes(cluster, sweep, tmp_path):
    study = [*STUDY, "model=vanilla,mor", "budget=3e8,6e8"]
    ended = sweep(*study)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"4 runs submitted as 2 jobs: \d+_0 ... \d+_1", ended.stdout)
    assert "python -m sweeps status quick" in ended.stdout
    assert not results(tmp_path / "runs")  # it did not wait for them
    wait(lambda: len(results(tmp_path / "runs")) == 4)
    local = sweep(*study, "launch=local", f"runs_dir={tmp_path / 'here'}")
    assert local.returncode == 0, local.stdout
    there, here = results(tmp_path / "runs"), results(tmp_path / "here")
    assert {n: r["loss"] for n, r in there.items()} == {n: r["loss"] for n, r in here.items()}
    wait(lambda: not slurm("squeue", "-h"))
    again = sweep(*study)
    assert "all 4 runs of study quick are done already" in again.stdout


def test_two_submissions_train_each_run_once(cluster, sweep, tmp_path):
    study = [*STUDY, "model=vanilla,mor", "budget=4e8"]
    for _ in range(2):
        assert sweep(*study).returncode == 0
    wait(lambda: len(results(tmp_path / "runs")) == 2)
    wait(lambda: not slurm("squeue", "-h"))
    for folder in (tmp_path / "runs").iterdir():
        assert json.loads((folder / "status.json").read_text())["attempt"] == 1


def test_a_requeued_job_goes_on_and_ends_with_the_same_numbers(cluster, sweep, tmp_path):
    study = [*STUDY, "model=mor", "budget=8e9", "runtime.checkpoint_s=0.5"]
    submitted = sweep(*study)
    assert submitted.returncode == 0, submitted.stderr
    job = re.search(r"as 1 jobs: (\d+)", submitted.stdout)[1]
    wait(lambda: list((tmp_path / "runs").glob("*/checkpoints/step-*/meta.json")))
    slurm("scontrol", "requeue", job)
    wait(lambda: results(tmp_path / "runs"), 180)
    [log] = (tmp_path / "runs").glob("*-trunk-*/log.txt")
    assert "resumed from step-" in log.read_text()
    whole = sweep(*study, "launch=local", f"runs_dir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stdout
    [there], [here] = results(tmp_path / "runs").values(), results(tmp_path / "whole").values()
    assert there["loss"] == here["loss"]


def test_a_partition_that_is_not_there_is_one_sentence(cluster, sweep):
    ended = sweep(*STUDY, "model=mor", "budget=4e8", "launch.slurm.partition=nope")
    assert ended.returncode == 2
    assert "launch.slurm.partition" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not slurm("squeue", "-h")


def test_without_slurm_the_way_out_is_named(tmp_path):
    command = [sys.executable, str(REPO / "sweep.py"), *STUDY, "model=mor", "budget=4e8"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "type launch=local" in ended.stderr
    assert "Traceback" not in ended.stderr
