"""The function that every launch goes through: take tasks of a plan until none is left.

A worker takes the first task that is ready and unclaimed, so several short runs are packed
into one process, and any number of workers, of this launch or of another one beside it, share a
plan without running anything twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from ledger.attempts import AttemptLog, jobs_of, unsettled
from ledger.claims import Claim, LostClaim
from ledger.damage import set_aside
from ledger.errors import DISK, FULL, UserError
from ledger.plan_file import LaunchFolder
from ledger.provenance import provenance
from ledger.store import Ledger
from mor.config import Config
from mor.train.folder import create_folder
from sweeps import backends
from sweeps.backends.base import WARNING_SIGNAL
from sweeps.ranks import Crew, Order, RankLost, follow, following, preparing_workers
from sweeps.task_queue import Queue, read_tasks
from sweeps.tasks import Task

log = logging.getLogger(__name__)

Observer = Callable[[Task, dict[str, Any]], None]

POLL_S = 0.5  # while other workers hold all that is ready
RENEW_S = 15.0  # between renewals of a claim
LIMIT_NEAR_S = 200.0  # a stop this near to a job's limit is because of it: warnings come early


def work(plan_file: Path, runs_dir: Path, launch_id: str, study: str) -> int:
    """Run tasks of a plan file until all have ended; returns how many this worker ran."""
    stop = stop_on_signals()
    if following():
        return follow(stop)
    return work_on(queue_of(plan_file, runs_dir, launch_id), study, stop)


def queue_of(
    plan_file: Path, runs_dir: Path, launch_id: str, only: tuple[str, ...] | None = None
) -> Queue:
    """The tasks of a plan file, or `only` some of them, as a worker takes them."""
    ledger = Ledger(runs_dir, backends.this_job())
    wanted = None if only is None else frozenset(only)
    tasks = read_tasks(plan_file, ledger, wanted)
    return Queue(tasks, ledger, launch_id, LaunchFolder(plan_file.parent), wanted)


def work_on(
    queue: Queue, study: str, stop: threading.Event, observe: Observer | None = None
) -> int:
    """Run tasks of a queue until all have ended or `stop` is set; returns how many were run here.

    With an observer, what is logged goes on to the console and not to the runs' logs only.
    """
    from mor.train.distributed import leave

    count, crew = 0, Crew()
    while crew.next_round(stop):
        queue.refresh()
        if not queue.open():
            crew.dismiss()
            break
        if any(_attempt(task, queue, crew, study, stop, observe) for task in queue.ready()):
            count += 1
        else:
            stop.wait(POLL_S)
        crew.end_round()
    leave()
    return count


def _attempt(
    task: Task,
    queue: Queue,
    crew: Crew,
    study: str,
    stop: threading.Event,
    observe: Observer | None,
) -> bool:
    """Run the task if no other worker does. False: it is held, was ended meanwhile, or its folder
    cannot be written."""
    try:
        return _claimed(task, queue, crew, study, stop, observe)
    except OSError as error:
        log.error("%s: %s", task.task_id, _in_words(error, queue.ledger.runs_dir))
        queue.fail(task)
        return False


def _claimed(
    task: Task,
    queue: Queue,
    crew: Crew,
    study: str,
    stop: threading.Event,
    observe: Observer | None,
) -> bool:
    claim = queue.ledger.claim(task.folder.run_id)
    if not claim.acquire():
        return False
    try:
        if task.finished(queue.ledger) or task.failed(queue.launch_id):
            return False
        with _renewing(claim), _log_file(task.folder.log_file, capture=observe is None):
            for damage in task.folder.set_damaged_aside():
                log.warning("damaged, set aside and made again: %s", damage)
            _run(task, queue, crew, claim, study, stop, observe)
    finally:
        claim.release()
    return True


def _run(
    task: Task,
    queue: Queue,
    crew: Crew,
    claim: Claim,
    study: str,
    stop: threading.Event,
    observe: Observer | None,
) -> None:
    """Train one segment or run whose claim is held; how it ended is in its status."""
    from mor.train.initial import DamagedWeights
    from mor.train.loop import DamagedStart, Diverged, Stopped
    from mor.train.memory import OutOfMemory
    from mor.train.run import Hooks

    folder, runs_dir = task.folder, queue.ledger.runs_dir
    status = _Status(task, queue.launch_id)

    def on_status(numbers: dict[str, Any]) -> None:
        claim.renew()
        status.write("running", **numbers)
        if observe:
            observe(task, numbers)

    def should_stop() -> bool:
        return stop.is_set() or queue.cancelled(task)

    hooks = Hooks(on_status, should_stop, provenance(), study)
    try:
        if task.is_data:
            folder.path.mkdir(parents=True, exist_ok=True)
        else:
            create_folder(folder, task.config)
        status.begin()
        trunk = task.trunk(queue.ledger)
        start = trunk.plateau(task.target) if trunk else None
        order = Order(task, start)
        crew.give(order)
        order.carry_out(hooks)
        if not task.finished(queue.ledger):  # or it would be taken up again without end
            raise UserError(
                f"{folder.path}: ended, but what it was to write is not there whole; type "
                f"python -m sweeps retry {task.task_id}"
            )
        status.end("done", "finished")
    except Stopped as stopped:
        status.end("stopped", *_why_stopped(task, queue, stop), error=str(stopped))
    except (DamagedStart, DamagedWeights) as damaged:
        log.error("%s", damaged)
        if task.is_evaluation:
            set_aside(folder.final)
        ours = task.is_evaluation or isinstance(damaged, DamagedStart)
        if ours and queue.lost_start(task):
            status.end("stopped", "stopped", error=str(damaged))
        else:
            queue.fail(task)
            status.end("failed", "failed", error=str(damaged))
    except Diverged as diverged:
        log.error("diverged: %s", diverged)
        status.end("diverged", "diverged", error=str(diverged))
    except LostClaim as lost:
        log.error("%s: this process leaves it", lost)
        status.close("lost claim")  # the status is another's now
    except UserError as mistake:
        log.error("%s", mistake)
        queue.fail(task)
        status.end("failed", "failed", error=str(mistake))
        if isinstance(mistake, OutOfMemory):
            crew.break_up(mistake)
    except OSError as error:
        log.error("failed: %s", error, exc_info=error.errno not in DISK)
        queue.fail(task)
        cause = "disk full" if error.errno in FULL else "failed"
        status.end("failed", cause, error=_in_words(error, runs_dir))
        crew.break_up(error)
    except Exception as error:
        if crew.lost(error):
            log.error("another process of this job is gone: %s", error)
            status.end("stopped", "process lost", error=str(error))
            raise RankLost(f"another process of this job is gone ({error})") from error
        log.exception("failed")
        queue.fail(task)
        status.end("failed", "failed", error=f"{type(error).__name__}: {error}")
        crew.break_up(error)


def _why_stopped(task: Task, queue: Queue, stop: threading.Event) -> tuple[str, str | None]:
    """The cause of a stop and a note, as far as this process knows; its backend may know more."""
    name = getattr(stop, "signal_name", None)
    if queue.cancelled(task, at_once=True):
        return "cancelled", None
    if name is None:  # this process was not asked: another one of the run was
        return "stopped", "another of its processes"
    left = backends.seconds_left()
    if left is not None and left < LIMIT_NEAR_S:
        return "time limit", name
    if left is not None and name == WARNING_SIGNAL:  # and not because of the time limit
        return "preempted", name
    return "stopped", name


class _Status:
    """Writes the status of one attempt at a task; on a full disk it says so and goes on."""

    def __init__(self, task: Task, launch_id: str) -> None:
        before = task.folder.status() or {}
        self._folder = task.folder
        self._attempts = AttemptLog(task.folder.path)
        self._begin = (task, before.get("heartbeat"))
        self._fixed: dict[str, Any] = {
            "task_id": task.task_id,
            "launch_id": launch_id,
            "budget": task.config.budget,
            "target": task.goal,
            "attempt": int(before.get("attempt", 0)) + 1,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": time.time(),
        }
        self._numbers: dict[str, Any] = {}

    def begin(self) -> None:
        """Open this attempt's line, closing those of attempts that ended without a cause."""
        task, heartbeat = self._begin
        on_gpu = not task.is_data and _on_gpu(task.config)
        per_rank = 1 if on_gpu else task.config.runtime.threads
        if task.is_data:
            per_rank = preparing_workers(task.config)
        devices = per_rank * int(os.environ.get("WORLD_SIZE", 1))
        try:
            before = self._attempts.read()
            self._fixed["attempt"] = self._attempts.begin(
                task.task_id, self._fixed["launch_id"], devices, on_gpu, backends.this_job()
            )
            open_ones = unsettled(before, living=False)
            if open_ones:
                known = backends.history(jobs_of(open_ones))
                self._attempts.settle(before, living=False, heartbeat=heartbeat, known=known)
        except OSError as failure:
            log.error("attempt not written: %s", failure)
        self.write("running")

    def end(
        self, state: str, cause: str, note: str | None = None, *, error: str | None = None
    ) -> None:
        """Write the last status and how the attempt ended."""
        self.write(state, error)
        self.close(cause, note or error)

    def close(self, cause: str, note: str | None = None) -> None:
        """Say how the attempt ended."""
        try:
            self._attempts.end(self._fixed["attempt"], cause, note)
        except OSError as failure:
            log.error("end of the attempt not written: %s", failure)

    def write(self, state: str, error: str | None = None, **numbers: Any) -> None:
        self._numbers.update(numbers)
        entry = {**self._fixed, **self._numbers, "state": state, "error": error}
        try:
            self._folder.write_status(**entry)
        except OSError as failure:
            log.error("status not written: %s", failure)


def _on_gpu(config: Config) -> bool:
    import torch

    return config.runtime.device != "cpu" and torch.cuda.is_available()


def _in_words(error: OSError, runs_dir: Path) -> str:
    if error.errno in FULL:
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
            except OSError as error:
                log.warning("claim not renewed, tried again soon: %s", error)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Lines(logging.StreamHandler[TextIO]):
    """Where a line cannot be written, the disk is full: the status says so, not a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextlib.contextmanager
def _log_file(path: Path, capture: bool) -> Iterator[None]:
    """Send what is logged during a task to its log; with `capture` what is printed, too."""
    with path.open("a", buffering=1) as file:
        handler = _Lines(file)
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


class Stop(threading.Event):
    """Set when the process is asked to end; says by which signal."""

    signal_name: str | None = None

    def by(self, number: int) -> None:
        self.signal_name = signal.Signals(number).name
        self.set()


def stop_on_signals() -> Stop:
    """An event that is set when the process is asked to end: the running task is checkpointed.

    USR2 is what a scheduler sends before a time limit and at a preemption."""
    stop = Stop()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(name, lambda number, _: stop.by(number))
    return stop
