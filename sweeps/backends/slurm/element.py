"""What one array element runs: the worker, limited to its own tasks, and how it ends.

Ends with exit code 0 only if all its tasks are done, so that Slurm starts what depends on it only
then. A worker that was asked to stop (time limit, preemption) has checkpointed; its job is put back
into the queue under the same id and goes on from there, unless it trains nothing however often it
is started. So is the job of a worker whose other processes are gone, as with a node that fails.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from ledger.errors import DamagedFile
from ledger.files import read_json, write_json
from ledger.plan_file import LaunchFolder
from sweeps.backends.base import BackendSilent
from sweeps.backends.slurm import client
from sweeps.ranks import RankLost, follow, following
from sweeps.task_queue import Queue
from sweeps.worker import queue_of, stop_on_signals, work_on

log = logging.getLogger(__name__)

REQUEUE_TRIES = 3
PATIENCE_S = 60.0  # a job can wait longer for an answer than a person
IDLE_STARTS = 3  # of a job, one after the other, that trained nothing: it is not requeued any more
PORTS = (20_000, 20_000)  # first one and how many: MASTER_PORT, by the job's number


class TasksFailed(Exception):
    """Some tasks of this element are not done: whatever depends on it must not start."""


def run_element(
    plan_file: Path, runs_dir: Path, launch_id: str, study: str, tasks: tuple[str, ...]
) -> None:
    """Work on some tasks of a plan. Raises TasksFailed where one failed, diverged or cannot go on.

    Several processes of one job (one for each GPU) find torchrun's variables in their environment.
    """
    stop = stop_on_signals()  # instead of submitit's handlers
    export_ranks()
    if following():
        follow(stop)
        return
    queue = queue_of(plan_file, runs_dir, launch_id, tasks)
    try:
        work_on(queue, study, stop)
    except RankLost as lost:
        log.error("%s", lost)
    queue.refresh()
    if queue.ready():  # it was stopped: a worker that ends by itself leaves none
        if idle_starts(plan_file.parent, queue) >= IDLE_STARTS:
            raise TasksFailed(
                f"nothing was trained in {IDLE_STARTS} starts of this job: its time limit may be "
                "too short to reach a first step; type the launch again with "
                "a larger launch.slurm.timeout_min"
            )
        if requeue():
            return
    left = [task.task_id for task in queue.unsuccessful()]
    if left:
        raise TasksFailed(f"not done: {', '.join(left)}; see log.txt of each in {runs_dir}")


def idle_starts(launch_folder: Path, queue: Queue) -> int:
    """How many starts of this job in a row, this one included, have left its tasks as they were."""
    file = LaunchFolder(launch_folder).idle_file(os.environ.get("SLURM_JOB_ID", "none"))
    spent = [(task.folder.status() or {}).get("spent", 0.0) for task in queue.tasks]
    now = [len(queue.open()), sum(spent)]
    before: dict[str, Any] = {}
    with contextlib.suppress(DamagedFile):
        before = read_json(file) or {}
    starts = before["starts"] + 1 if before.get("left") == now else 1
    file.parent.mkdir(exist_ok=True)
    write_json(file, {"left": now, "starts": starts})
    return starts


def export_ranks() -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT from Slurm's variables, as
    torchrun does. Nothing for a job of one process."""
    slurm = os.environ
    world = int(slurm.get("SLURM_NTASKS", "1"))
    if world == 1:
        return
    first, count = PORTS
    os.environ.update(
        RANK=slurm["SLURM_PROCID"],
        WORLD_SIZE=str(world),
        LOCAL_RANK=slurm["SLURM_LOCALID"],
        LOCAL_WORLD_SIZE=str(world // int(slurm.get("SLURM_JOB_NUM_NODES", "1"))),
        MASTER_ADDR=_master(),
        MASTER_PORT=str(first + int(slurm["SLURM_JOB_ID"]) % count),
    )


def _master() -> str:
    """Where the first process listens: its node's name, or its address where that is unknown."""
    if int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) == 1:
        return "127.0.0.1"
    nodes = os.environ["SLURM_JOB_NODELIST"]
    names = client.output("scontrol", "show", "hostnames", nodes, timeout_s=PATIENCE_S).split()
    try:
        socket.getaddrinfo(names[0], None)
    except OSError:
        return os.environ.get("SLURM_LAUNCH_NODE_IPADDR", names[0])
    return names[0]


def requeue() -> bool:
    """Put this job back into the queue, unless it was cancelled or Slurm does so itself.

    True: Slurm ends this process next, and starts the job again under the same id.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    if _state(job) != "RUNNING":
        return False
    # the signal that ends this job must not end the command that requeues it
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        for attempt in range(REQUEUE_TRIES):
            with contextlib.suppress(BackendSilent):
                client.output("scontrol", "requeue", job, timeout_s=PATIENCE_S)
                return True
            time.sleep(1 + attempt)
    finally:
        signal.signal(signal.SIGTERM, before)
    return False


def _state(job: str) -> str | None:
    """This very job's state; of an array, the element's."""
    try:
        output = client.output("squeue", "-h", "-j", job, "-o", "%A %T", timeout_s=PATIENCE_S)
    except BackendSilent:
        return None
    states = dict(line.split() for line in output.splitlines())
    return states.get(job)
