"""One run on several processes, from the command line: torchrun, and a stop asked of one rank."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ledger.attempts import AttemptLog
from tests.mor.train.test_parallel import finish, start_ranks
from tests.sweeps.conftest import REPO

ONE = [
    *("study=quick", "size=9k", "model=mor", "train.val_tokens=1024", "train.warmup_budget=2e8"),
    *("runtime.log_steps=1", "runtime.checkpoint_s=1"),
]


def folders(runs: Path) -> dict[str, Path]:
    """The trunk and the run of a store that holds one of each."""
    return {"trunk" if "-trunk-" in path.name else "run": path for path in runs.iterdir()}


@pytest.mark.slow
def test_torchrun_trains_one_run_to_the_numbers_of_one_process(sweep, tmp_path):
    alone = sweep(*ONE, "budget=4e8", f"runs_dir={tmp_path / 'alone'}")
    assert alone.returncode == 0, alone.stderr
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", str(REPO / "sweep.py"), *ONE, "budget=4e8"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.count("validation loss") == 1  # rank 0 alone speaks
    one, two = folders(tmp_path / "alone"), folders(tmp_path / "runs")
    assert {k: v.name for k, v in one.items()} == {k: v.name for k, v in two.items()}
    a, b = (json.loads((of["run"] / "result.json").read_text()) for of in (one, two))
    assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
    assert b["flops"] == a["flops"]
    assert (a["throughput"]["devices"], b["throughput"]["devices"]) == (1, 2)
    for kind, folder in two.items():
        steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()]
        assert steps == sorted(set(steps)), kind
        status = json.loads((folder / "status.json").read_text())
        assert (status["state"], status["attempt"], status["world_size"]) == ("done", 1, 2)


@pytest.mark.slow
def test_torchrun_scores_a_run_that_is_done_once(sweep, tmp_path):
    assert sweep(*ONE, "budget=4e8").returncode == 0
    command = [str(REPO / "sweep.py"), *ONE, "budget=4e8", "study.evaluate=corpus"]
    outputs = finish(start_ranks(command, cwd=tmp_path), codes=(0, 0))
    assert outputs[0].count("corpus, bits per byte") == 1
    assert "corpus, bits per byte" not in outputs[1]
    assert len(list((tmp_path / "runs").glob("*/evaluations/corpus.json"))) == 1


@pytest.mark.slow
def test_a_stop_asked_of_one_rank_stops_all_and_one_process_goes_on(sweep, tmp_path):
    command = [str(REPO / "sweep.py"), *ONE, "budget=2e9"]
    ranks = start_ranks(command, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "runs").glob("*/metrics.jsonl")):
        assert time.monotonic() < deadline
        assert [rank.poll() for rank in ranks] == [None, None]
        time.sleep(0.05)
    ranks[1].send_signal(signal.SIGTERM)
    outputs = finish(ranks, codes=(130, 0))
    assert "stopped by another of its processes, its state is in a checkpoint" in outputs[0]
    [trunk] = (tmp_path / "runs").glob("*-trunk-*")
    [newest] = sorted((trunk / "checkpoints").glob("step-*"))[-1:]
    assert len(list(newest.glob("*.distcp"))) == 2
    assert json.loads((trunk / "status.json").read_text())["state"] == "stopped"
    [attempt] = AttemptLog(trunk).read()
    assert (attempt.cause, attempt.note) == ("stopped", "another of its processes")
    again = sweep(*ONE, "budget=2e9")
    assert again.returncode == 0, again.stderr
    assert f"resumed from {newest.name}" in (trunk / "log.txt").read_text()


def test_torchrun_with_a_study_is_refused(refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = refused("-m", "study=quick", "model=vanilla")
    assert said.startswith("WORLD_SIZE=2: torchrun trains one run")
