"""A run on two nodes of a real Slurm (gloo) loses one: it goes on from its newest checkpoint and
ends with the bits of two processes that nothing happened to."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.sweeps.backends.slurm.real.case import RUN, Case
from tests.sweeps.backends.slurm.real.client import slurm, wait
from tests.sweeps.conftest import REPO

pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.slow]  # one cluster, one worker

NODES = ["launch.slurm.nodes=2", "launch.slurm.gpus_per_node=1"]  # GPUs in name only: gloo on CPUs


@pytest.fixture
def two(request, tmp_path_factory) -> tuple[str, Path]:
    """How the ranks share the model, and the same run by two ranks here."""
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(REPO / "sweep.py"), *RUN[1:], f"runtime.parallel={request.param}"),
        ],
        cwd=folder, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    [run] = (folder / "runs").iterdir()
    return request.param, run


@pytest.fixture
def on_two_nodes(submitted, two):
    kind, whole = two

    def submit(*settings: str) -> Case:
        case = submitted(*NODES, f"runtime.parallel={kind}", *settings)
        assert case.status()["world_size"] == 2
        case.whole = whole
        return case

    return submit


def ranks(case: Case) -> dict[str, psutil.Process]:
    """The process of each node that trains in a case's job, by the node's name."""
    job, found = case.job(), {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            names = process.environ()
            if (
                names.get("SLURM_JOB_ID") == job
                and names.get("SLURM_PROCID")
                and ("submitit" in " ".join(process.cmdline()))
            ):
                found[names["SLURMD_NODENAME"]] = process
    return found


def second_node(case: Case) -> tuple[str, psutil.Process]:
    """The node that does not hold rank 0, and its process."""
    [(node, process)] = [
        (node, process) for node, process in ranks(case).items() if process.pid != case.worker().pid
    ]
    return node, process


@pytest.mark.parametrize("two", ["fsdp"], indirect=True)
def test_a_node_loses_its_power(on_two_nodes, cluster):
    """Nobody closes its connections: the other rank waits until Slurm misses the node."""
    case = on_two_nodes()
    node, process = second_node(case)
    daemon = psutil.Process(int((cluster / "run" / f"slurmd.{node}.pid").read_text()))
    stepper = next(p for p in process.parents() if p.name() == "slurmstepd")
    lost = [daemon, stepper, process]
    for one in lost:
        one.send_signal(signal.SIGSTOP)
    try:
        case.ends("node failure")
    finally:
        for one in lost:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        subprocess.run(["slurmd", "-f", str(cluster / "slurm.conf"), "-N", node], check=True)
        wait(lambda: "idle" in slurm("sinfo", "-h", "-n", node, "-p", "main", "-o", "%T"), 60)


@pytest.mark.parametrize("two", ["ddp"], indirect=True)
def test_a_rank_of_another_node_is_killed(on_two_nodes):
    """The first rank hears of it at once and puts the job back into the queue."""
    case = on_two_nodes()
    second_node(case)[1].kill()
    case.ends("process lost")
