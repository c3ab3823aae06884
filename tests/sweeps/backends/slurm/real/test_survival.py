"""What a cluster does to runs, done to them on a real Slurm. Whatever happened, a run goes on from
its newest complete checkpoint, ends once, with the bits of a run that nothing happened to, and says
in its attempts why each of them ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from sweeps.backends.slurm import queue as slurm_queue
from tests.sweeps.backends.slurm.real.case import RUN, SLURM, Case, weights
from tests.sweeps.backends.slurm.real.client import results, slurm, wait
from tests.sweeps.conftest import REPO

pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.slow]  # one cluster, one worker


def test_requeued_from_outside(submitted):
    case = submitted()
    slurm("scontrol", "requeue", case.job())
    case.ends("requeued")


@pytest.mark.parametrize("partition", ["low", "low_nograce"])
def test_preempted_with_and_without_grace(submitted, partition):
    case = submitted(f"launch.slurm.partition={partition}")
    nodes = slurm("sinfo", "-h", "-p", "high", "-o", "%D")
    command = ["sbatch", "-p", "high", f"--nodes={nodes}", "--exclusive", "--output=/dev/null"]
    slurm(*command, "--wrap", "srun sleep 3")
    case.ends("preempted")


def test_the_time_limit(submitted):
    """Slurm warns 15 s before the limit, or up to a minute earlier than that."""
    case = submitted("launch.slurm.timeout_min=1")
    with contextlib.suppress(psutil.NoSuchProcess):
        worker = case.worker()
        worker.suspend()  # so that it is not done before the limit, however fast this machine is
        wait(lambda: _left(case.job()) < 13, 90)
        worker.resume()
    *before, last = case.causes()
    assert before
    assert set(before) == {"time limit"}
    assert last == "finished"


def _left(job: str) -> float:
    """Seconds of wall time that a job has left; 0 for one that does not run any more."""
    try:
        found = slurm_queue.queue([job])[job]
    except KeyError:
        return 0.0
    return (found.left_s or 0.0) if found.state == "RUNNING" else 0.0


def test_the_worker_is_killed_and_the_run_retried(submitted):
    case = submitted()
    case.worker().kill()
    wait(lambda: not slurm("squeue", "-h"))
    assert "exited without reporting a cause" in case.sweeps("why", case.run.name)
    assert "1 run submitted" in case.sweeps("retry", "quick")
    case.ends("killed")


def test_slurms_own_process_is_killed_and_a_ghost_may_be_left(submitted):
    """The worker may live on as a ghost: whoever holds the claim ends the run, once."""
    case = submitted()
    for stepper in case.steppers():
        with contextlib.suppress(psutil.NoSuchProcess):
            stepper.kill()
    wait(lambda: not slurm("squeue", "-h") or results(case.folder / "runs"), 180)
    if not results(case.folder / "runs"):
        case.sweeps("launch", "quick", "--retry")
    wait(lambda: results(case.folder / "runs"), 240)
    expected = json.loads((case.whole / "result.json").read_text())
    result = json.loads((case.run / "result.json").read_text())
    assert (result["loss"], result["flops"]) == (expected["loss"], expected["flops"])
    assert weights(case.run) == weights(case.whole)
    wait(lambda: [a.cause for a in case.attempts()].count("finished") == 1, 60)


def test_a_dead_node(submitted, cluster):
    case = submitted()
    node = slurm("squeue", "-h", "-j", case.job(), "-o", "%N")
    pid_file = cluster / "run" / f"slurmd.{node}.pid"
    dead = [psutil.Process(int(pid_file.read_text())), *case.steppers(), case.worker()]
    for process in dead:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    try:
        case.ends("node failure")
    finally:
        subprocess.run(["slurmd", "-f", str(cluster / "slurm.conf"), "-N", node], check=True)
        wait(lambda: "idle" in slurm("sinfo", "-h", "-n", node, "-p", "main", "-o", "%T"), 60)


def test_cancelled_and_retried(submitted):
    case = submitted()
    assert "jobs ended" in case.sweeps("cancel", "quick")
    wait(lambda: not slurm("squeue", "-h"))
    assert not results(case.folder / "runs")
    assert "1 run submitted" in case.sweeps("retry", case.run.name[:-2])
    case.ends("cancelled")


def test_a_full_disk(submitted, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(runs)])
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        case = submitted()
        filler = runs / ".filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        wait(lambda: not slurm("squeue", "-h"))
        assert [a.cause for a in case.attempts()] == ["disk full"]
        filler.unlink()
        assert "free some space" in case.sweeps("why", case.run.name)
        case.sweeps("retry", "quick")
        case.ends("disk full")
    finally:
        subprocess.run(["scancel", "--me"], check=True, timeout=30)
        wait(lambda: not slurm("squeue", "-h"), 60)
        subprocess.run(["umount", "-l", str(runs)], check=True)


def test_the_login_node_goes_away_right_after_submission(cluster, whole, tmp_path):
    folders = [f"{name}_dir={tmp_path / name}" for name in ("runs", "studies")]
    command = [sys.executable, str(REPO / "sweep.py"), *RUN, *SLURM, *folders]
    login = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    wait(lambda: list(tmp_path.glob("studies/*/launches/*/jobs.json")))
    os.killpg(login.pid, signal.SIGKILL)
    login.wait()
    wait(lambda: results(tmp_path / "runs"))
    case = Case(tmp_path, whole)
    wait(lambda: case.attempts()[-1].cause, 60)
    assert [a.cause for a in case.attempts()] == ["finished"]
    assert weights(case.run) == weights(whole)


def test_two_submissions_and_a_requeue_train_the_run_once(submitted, sweep, tmp_path):
    case = submitted()
    first = case.job()
    again = [*RUN, *SLURM, f"studies_dir={tmp_path / 'other'}"]  # another study, the same run
    assert sweep(*again).returncode == 0
    time.sleep(2)
    slurm("scontrol", "requeue", first)
    wait(lambda: results(case.folder / "runs"), 240)
    wait(lambda: not slurm("squeue", "-h"))
    causes = [a.cause for a in case.attempts()]
    assert causes.count("finished") == 1
    result = json.loads((case.run / "result.json").read_text())
    expected = json.loads((case.whole / "result.json").read_text())
    assert result["flops"] == expected["flops"]
    assert weights(case.run) == weights(case.whole)
