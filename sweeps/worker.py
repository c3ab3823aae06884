"""The function that every launch goes through: take tasks of a plan until none is left.

A worker takes the first task that is ready and that nobody holds, so several short runs are packed
into one process, and any number of workers, of this launch or of another one beside it, share a
plan without running anything twice.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mor.config import UserError
from sweeps.claim import Claim, LostClaim
from sweeps.ledger import Ledger
from sweeps.provenance import provenance
from sweeps.tasks import Queue, Task, read_tasks

log = logging.getLogger(__name__)

Observer = Callable[[Task, dict[str, Any]], None]

POLL_S = 0.5  # while other workers hold all that is ready
RENEW_S = 15.0  # between renewals of a claim


def work(plan_file: Path, runs_dir: Path, launch_id: str, study: str) -> int:
    """Run tasks of a plan file until all have ended; returns how many this worker ran."""
    ledger = Ledger(runs_dir)
    queue = Queue(read_tasks(plan_file, ledger), ledger, launch_id)
    return work_on(queue, study, stop_on_signals())


def work_on(
    queue: Queue, study: str, stop: threading.Event, observe: Observer | None = None
) -> int:
    """Run tasks of a queue until all have ended or `stop` is set; returns how many were run here.

    With an observer, what is logged goes on to the console and not to the runs' logs only.
    """
    count = 0
    while not stop.is_set():
        queue.refresh()
        if not queue.open():
            break
        if any(_attempt(task, queue, study, stop, observe) for task in queue.ready()):
            count += 1
        else:
            stop.wait(POLL_S)
    return count


def _attempt(
    task: Task, queue: Queue, study: str, stop: threading.Event, observe: Observer | None
) -> bool:
    """Run the task if nobody else does. False: it is held, or was ended meanwhile."""
    claim = Claim(task.folder.path)
    if not claim.acquire():
        return False
    try:
        if task.finished(queue.ledger) or task.failed(queue.launch_id):
            return False
        with _renewing(claim), _log_file(task.folder.log_file, capture=observe is None):
            _run(task, queue, claim, study, stop, observe)
    finally:
        claim.release()
    return True


def _run(
    task: Task,
    queue: Queue,
    claim: Claim,
    study: str,
    stop: threading.Event,
    observe: Observer | None,
) -> None:
    """Train one segment or run whose claim is held; how it ended is in its status."""
    from mor.train.loop import Diverged, Stopped
    from mor.train.run import Hooks, train_run, train_trunk

    folder, runs_dir = task.folder, queue.ledger.runs_dir
    status = _Status(task, queue.launch_id)

    def on_status(numbers: dict[str, Any]) -> None:
        claim.renew()
        status.write("running", **numbers)
        if observe:
            observe(task, numbers)

    hooks = Hooks(on_status, stop.is_set, provenance(), study)
    try:
        folder.create(task.config)
        status.write("running")
        if task.is_segment:
            train_trunk(task.config, folder, hooks)
        else:
            trunk = task.trunk(queue.ledger)
            train_run(task.config, folder, trunk.plateau(task.target) if trunk else None, hooks)
        status.write("done")
    except Stopped as stopped:
        status.write("stopped", error=str(stopped))
    except Diverged as diverged:
        log.error("diverged: %s", diverged)
        status.write("diverged", error=str(diverged))
    except LostClaim as lost:
        log.error("%s: this process leaves it", lost)
    except UserError as mistake:
        log.error("%s", mistake)
        status.write("failed", error=str(mistake))
    except OSError as error:
        log.exception("failed")
        status.write("failed", error=_in_words(error, runs_dir))
    except Exception as error:
        log.exception("failed")
        status.write("failed", error=f"{type(error).__name__}: {error}")


class _Status:
    """Writes the status of one attempt at a task; on a full disk it says so and goes on."""

    def __init__(self, task: Task, launch_id: str) -> None:
        before = task.folder.status() or {}
        self._folder = task.folder
        self._fixed = {
            "task_id": task.task_id,
            "launch_id": launch_id,
            "budget": task.config.budget,
            "target": task.target if task.is_segment else task.config.budget,
            "attempt": int(before.get("attempt", 0)) + 1,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": time.time(),
        }
        self._numbers: dict[str, Any] = {}

    def write(self, state: str, error: str | None = None, **numbers: Any) -> None:
        self._numbers.update(numbers)
        entry = {**self._fixed, **self._numbers, "state": state, "error": error}
        try:
            self._folder.write_status(**entry)
        except OSError as failure:
            log.error("status not written: %s", failure)


def _in_words(error: OSError, runs_dir: Path) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"runs_dir={runs_dir}: the disk is full; free some space and launch the study again, "
            "it goes on from the newest checkpoint"
        )
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _renewing(claim: Claim) -> Iterator[None]:
    """Keep a claim fresh from a thread, for as long as the process lives."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_S):
            try:
                claim.renew()
            except LostClaim:
                return  # the training loop finds out at its next heartbeat

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _log_file(path: Path, capture: bool) -> Iterator[None]:
    """Send what is logged during a task to its log; with `capture` what is printed, too."""
    with path.open("a", buffering=1) as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            with contextlib.ExitStack() as stack:
                if capture:
                    stack.enter_context(contextlib.redirect_stdout(file))
                    stack.enter_context(contextlib.redirect_stderr(file))
                yield
        finally:
            root.removeHandler(handler)
            root.setLevel(level)


def stop_on_signals() -> threading.Event:
    """An event that is set when the process is asked to end: the task in hand is checkpointed."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    return stop
