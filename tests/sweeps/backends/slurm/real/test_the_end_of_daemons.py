"""Slurm's daemons die in the middle of a study and are started again: nothing is lost, and nobody
who looks or launches meanwhile meets a traceback. The last file of this folder: nodes whose daemons
were killed are of no use to other tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ledger.attempts import AttemptLog
from tests.sweeps.backends.slurm.real.case import RUN, SLURM, sweeps, weights
from tests.sweeps.backends.slurm.real.client import results, slurm, wait
from tests.sweeps.conftest import REPO

pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.slow]  # one cluster, one worker

STUDY = [*RUN, "train.branch=true", "budget=3e9,1e10"]  # a trunk of two segments, two runs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The runs of the same study, trained here."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, str(REPO / "sweep.py"), *STUDY, "launch=local"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    return folder / "runs"


@pytest.fixture
def daemons(cluster) -> Iterator[Daemons]:
    found = Daemons(cluster)
    yield found
    found.start()


class Daemons:
    """Those of a cluster: all of its nodes', the controller and the accounting."""

    def __init__(self, cluster: Path) -> None:
        self.cluster = cluster
        self.nodes = sorted(p.suffixes[0][1:] for p in (cluster / "run").glob("slurmd.*.pid"))

    def end(self, how: signal.Signals) -> None:
        for file in ("slurmctld", "slurmdbd", *(f"slurmd.{node}" for node in self.nodes)):
            os.kill(self._pid(file), how)
            wait(lambda file=file: not self._lives(file), 30)

    def start(self) -> None:
        """Those that do not run; the controller last."""
        configuration = str(self.cluster / "slurm.conf")
        self._start("slurmdbd", ["slurmdbd"])
        wait(lambda: answers("sacctmgr", "show", "cluster"), 60)
        for node in self.nodes:
            self._start(f"slurmd.{node}", ["slurmd", "-f", configuration, "-N", node])
        self._start("slurmctld", ["slurmctld", "-f", configuration])
        wait(lambda: answers("squeue"), 60)

    def _start(self, name: str, command: list[str]) -> None:
        if not self._lives(name):
            names = {**os.environ, "MYSQL_UNIX_PORT": f"{self.cluster}/run/db.sock"}
            subprocess.run(command, env=names, check=True, capture_output=True, timeout=30)

    def _pid(self, file: str) -> int:
        return int((self.cluster / "run" / f"{file}.pid").read_text())

    def _lives(self, file: str) -> bool:
        try:
            return psutil.Process(self._pid(file)).status() != psutil.STATUS_ZOMBIE
        except (FileNotFoundError, psutil.NoSuchProcess):
            return False


def answers(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_all_daemons_end_in_mid_study(how, daemons, undisturbed, sweep, tmp_path):
    """A controller that is killed forgets what it has not saved yet: it may start a job again that
    runs, or put it on hold. `why` says what to type then."""
    ended = sweep(*STUDY, *SLURM)
    assert ended.returncode == 0, ended.stderr
    wait(lambda: list(tmp_path.glob("runs/*/checkpoints/step-*/meta.json")))
    daemons.end(how)
    assert "does not answer" in sweeps(tmp_path, "status", "quick")
    refused = sweep(*STUDY, *SLURM, "seed=1")
    assert refused.returncode == 2, refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    daemons.start()
    runs = list(results(undisturbed))
    wait(lambda: not goes_on(), 240)
    if how is signal.SIGKILL and len(results(tmp_path / "runs")) < 2:
        said = " ".join(sweeps(tmp_path, "why", run) for run in runs)
        assert all(f"scontrol release {job}" in said for job in held()), said
    for job in held():
        slurm("scontrol", "release", job)
    again = sweep(*STUDY, *SLURM)
    assert again.returncode == 0, again.stderr
    assert how is signal.SIGKILL or "submitted" not in again.stdout, again.stdout
    wait(lambda: not slurm("squeue", "-h"), 240)
    again = sweep(*STUDY, *SLURM)
    assert again.returncode == 0, again.stderr
    assert not slurm("squeue", "-h")  # nothing is left to train
    for run in runs:
        assert weights(tmp_path / "runs" / run) == weights(undisturbed / run)
        assert AttemptLog(tmp_path / "runs" / run).read()[-1].cause == "finished"


def held() -> list[str]:
    """Jobs that wait for somebody to release them."""
    lines = [line.split("|") for line in slurm("squeue", "-h", "-r", "-o", "%i|%r").splitlines()]
    return [job for job, reason in lines if "held" in reason.lower()]


def goes_on() -> bool:
    """Whether a job runs, or will by itself."""
    return len(slurm("squeue", "-h", "-r").splitlines()) > len(held())
