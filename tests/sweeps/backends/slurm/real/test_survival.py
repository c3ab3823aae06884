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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from ledger.attempts import Attempt, AttemptLog
from sweeps.backends.slurm import queue as slurm_queue
from tests.sweeps.backends.slurm.real.client import results, slurm, wait
from tests.sweeps.conftest import REPO

pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.slow]  # one cluster, one worker

RUN = [
    *("-m", "study=quick", "size=9k", "model=mor", "budget=3e9", "train.branch=false"),
    *("train.val_tokens=1024", "train.warmup_budget=2e8", "runtime.log_steps=1"),
]
SLURM = ["launch=slurm", "launch.slurm.pack_min=30", "runtime.checkpoint_s=0.2"]


def weights(run: Path) -> dict[str, bytes]:
    """The final weights and optimiser state, as bytes."""
    out = run / "final.pt"
    dcp_to_torch_save(run / "checkpoints" / "final", out)
    return {name: t.numpy().tobytes() for name, t in torch.load(out, weights_only=True).items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run, trained here without any interruption."""
    folder = tmp_path_factory.mktemp("whole")
    command = [sys.executable, str(REPO / "sweep.py"), *RUN, "launch=local"]
    folders = [f"runs_dir={folder / 'runs'}", f"studies_dir={folder / 'studies'}"]
    subprocess.run([*command, *folders], cwd=folder, check=True, capture_output=True, timeout=300)
    [run] = (folder / "runs").iterdir()
    return run


class Case:
    """One submitted run in a folder of its own, and ways to look at it and to meddle."""

    def __init__(self, folder: Path, whole: Path) -> None:
        self.folder, self.whole = folder, whole
        self.run = folder / "runs" / whole.name

    def sweeps(self, *arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "sweeps", *arguments],
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(REPO)},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def checkpoints(self) -> list[Path]:
        return list(self.run.glob("checkpoints/step-*/meta.json"))

    def status(self) -> dict[str, Any]:
        return json.loads((self.run / "status.json").read_text())

    def attempts(self) -> list[Attempt]:
        return AttemptLog(self.run).read()

    def job(self) -> str:
        job_id = self.attempts()[-1].job_id
        assert job_id is not None
        return job_id

    def worker(self) -> psutil.Process:
        return psutil.Process(self.status()["pid"])

    def steppers(self) -> list[psutil.Process]:
        """The slurmstepd processes of its job: above the worker and above the batch script."""
        above = [p for p in self.worker().parents() if p.name() == "slurmstepd"]
        number = slurm("squeue", "-h", "-j", self.job(), "-o", "%A")
        named = [p for p in psutil.process_iter() if f"[{number}." in " ".join(_words(p))]
        return list({p.pid: p for p in [*above, *named]}.values())

    def ends(self, *causes: str) -> None:
        """Wait for the end: once, with the whole run's numbers and bits, and these causes."""
        assert self.causes() == [*causes, "finished"], self.attempts()

    def causes(self) -> list[str | None]:
        """The same; returns the causes."""
        wait(lambda: results(self.folder / "runs"), 240)
        wait(lambda: self.attempts()[-1].cause, 60)
        self.sweeps("status", "quick")  # settles what only Slurm knows
        result = json.loads((self.run / "result.json").read_text())
        expected = json.loads((self.whole / "result.json").read_text())
        assert result["loss"] == expected["loss"]
        assert result["flops"] == expected["flops"]  # what was trained twice is counted once
        steps = [json.loads(line)["step"] for line in (self.run / "metrics.jsonl").open()]
        assert steps == list(range(1, result["steps"] + 1))
        assert "resumed from step-" in (self.run / "log.txt").read_text()
        assert weights(self.run) == weights(self.whole)
        return [attempt.cause for attempt in self.attempts()]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def submitted(cluster, whole, sweep, tmp_path) -> Iterator[Callable[..., Case]]:
    """Submit the run and wait for its first checkpoint."""

    def submit(*settings: str) -> Case:
        case = Case(tmp_path, whole)
        ended = sweep(*RUN, *SLURM, *settings)
        assert ended.returncode == 0, ended.stderr
        wait(case.checkpoints)
        return case

    yield submit
    subprocess.run(["scancel", "--me"], check=True, timeout=30)
    wait(lambda: not slurm("squeue", "-h"), 60)


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
