"""A bounded pool of workers on this machine, as submitit local jobs, with a live table."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import submitit
from rich.console import Console
from rich.live import Live

from ledger.result import FINISHED
from ledger.store import Ledger
from mor.config import Config, ConfigError
from mor.devices import device_key
from sweeps.backends.base import Backend, Measurements, Submission
from sweeps.board import board
from sweeps.config import ClusterConfig, LaunchConfig, SweepConfig
from sweeps.damage import SetAside
from sweeps.ending import Outcome, summary
from sweeps.launches import Launch, add_to_study, keep_settings, new_launch
from sweeps.places import refuse_no_cache
from sweeps.plan import Plan
from sweeps.routing import print_routing
from sweeps.tables import duration, print_plan
from sweeps.watch import StudyView
from sweeps.worker import work

REFRESH_S = 1.0
RESTARTS = 3  # of crashed workers, per launch
NO_LIMIT_MIN = 60 * 24 * 365
QUICK_HOURS = 1.0  # study=quick needs less, on any machine


@functools.cache
def gpu_names() -> tuple[str, ...]:
    """The GPUs of this machine by their driver's names; none without nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return ()
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in found.stdout.splitlines() if line.strip())


def this_machine(runs: Iterable[Config]) -> ClusterConfig:
    """What a launch here is priced on: a GPU of a known kind, or one CPU core."""
    on_cpu = all(run.runtime.device == "cpu" for run in runs)
    known = [key for name in gpu_names() if (key := device_key(name))]
    if known and not on_cpu:
        return ClusterConfig(known[0], 0.4)
    return ClusterConfig("cpu", 0.3)


def pool_size(plan: Plan, launch: LaunchConfig) -> int:
    """Workers at a time: as set, or one for each GPU, or CPU cores over threads per run."""
    if launch.workers is not None:
        return launch.workers
    if plan.gpu != "cpu":
        return len(gpu_names())
    return max(1, len(os.sched_getaffinity(0)) // max(_threads(plan), default=1))


def _threads(plan: Plan) -> list[int]:
    """Threads of each run, where the plan's hours are those of a core; else none."""
    return [run.config.runtime.threads for run in plan.runs] if plan.gpu == "cpu" else []


def refuse_too_long(plan: Plan, launch: LaunchConfig, workers: int) -> None:
    """Raises ConfigError where this machine needs longer than `launch.max_hours`.

    `plan` is priced on this machine.
    """
    at_a_time = workers * min(_threads(plan), default=1)  # devices, as hours count them
    hours = plan.totals()["remaining"]["gpu_hours"] / at_a_time
    if hours > launch.max_hours and not launch.force:
        fits = launch.max_hours > QUICK_HOURS
        smaller = "study=quick for one that fits, " if fits else ""
        raise ConfigError(
            "launch.max_hours",
            f"{launch.max_hours:g}",
            f"this plan needs about {duration(hours)} on this machine ({plan.gpu}, {workers} at a "
            "time)",
            f"type launch=plan to see it priced, {smaller}or "
            f"launch.max_hours={_rounded_up(hours):g} to start it here all the same",
        )


def _rounded_up(hours: float) -> float:
    """To two digits."""
    digit = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return float(f"{math.ceil(hours / digit) * digit:.2g}")


def refuse_without_gpu(configs: Iterable[Config]) -> None:
    """Raises ConfigError where a run asks for a GPU and this machine has none."""
    asking = next((config for config in configs if config.runtime.device == "cuda"), None)
    if asking is not None:
        from mor.train.run import choose_device  # torch: only where a run asks for a GPU

        choose_device(asking)


class Local(Backend):
    """A pool of processes on this machine; a launch lasts until all runs have ended."""

    name = "local"

    def present(self) -> bool:
        return True

    def prepare(self, study: SweepConfig, configs: list[Config]) -> ClusterConfig:
        refuse_without_gpu(configs)
        return this_machine(configs)

    def measure(self, asked: Measurements) -> None:
        from sweeps.measuring import measure_here

        _let_children_import_us()
        on_cpu = this_machine(asked.configs).gpu == "cpu"
        gpus = 0 if on_cpu else len(gpu_names())
        threads = max(config.runtime.threads for config in asked.configs)
        workers = asked.study.launch.workers or gpus or len(os.sched_getaffinity(0)) // threads
        measure_here(asked, max(1, workers), gpus)

    def submit(self, submission: Submission) -> None:
        plan, ledger = submission.plan, submission.ledger
        study, console = submission.study, submission.console
        workers = pool_size(plan, study.launch)
        refuse_too_long(plan, study.launch, workers)
        refuse_no_cache(plan)
        keep_settings(study, self.name)
        if not plan.graph.left():
            console.print(f"all {len(plan.runs)} runs of study {plan.study} are done already")
        else:
            print_plan(plan, console)
        folder = Path(study.studies_dir).absolute() / plan.study
        outcome = carry_out(plan, ledger, folder, workers, console)
        print_routing((ledger.folder(run.run_id).result() for run in plan.runs), console)
        where = os.path.relpath(folder)
        console.print(f"{outcome.done} of {len(plan.runs)} runs done.", highlight=False)
        for line in outcome.pages(where):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        outcome.refuse(plan.study)


def carry_out(
    plan: Plan,
    ledger: Ledger,
    study_folder: Path,
    workers: int,
    console: Console,
) -> Outcome:
    """Carry out a plan with a pool of `workers` processes; blocks until all runs have ended."""
    files = new_launch(plan, ledger, study_folder)
    add_to_study(files)
    damaged = SetAside(plan)
    pool = _Pool(files, 0 if plan.gpu == "cpu" else len(gpu_names()))
    view = StudyView(files.folder.plan_file, ledger, launch_id=files.launch_id)
    with contextlib.ExitStack() as stack:
        stack.callback(pool.stop)
        stack.enter_context(_terminated_as_interrupted())
        pool.start(min(workers, _parallel(plan)))
        _show_until_ended(pool, view, console, workers)
    damaged.say(console)
    return summary(plan, ledger, console)


def _parallel(plan: Plan) -> int:
    """How many tasks of the plan can ever run at once; none where all is done."""
    if not plan.graph.left():
        return 0
    return (
        len({run.trunk_id or run.run_id for run in plan.runs})
        + len(plan.runs)
        + len(plan.evaluations)
    )


class _Pool:
    """Worker processes as submitit jobs; one that crashes while work is left is restarted."""

    def __init__(self, launch: Launch, gpus: int) -> None:
        _let_children_import_us()
        self._executor = submitit.LocalExecutor(launch.folder.workers)
        self._executor.update_parameters(timeout_min=NO_LIMIT_MIN)
        self._arguments = launch.arguments
        self._gpus = gpus  # on this machine; each worker sees one
        self._jobs: dict[int, submitit.Job[int]] = {}  # by the worker's number
        self._restarts = 0

    def start(self, workers: int) -> None:
        for number in range(workers):
            self._start_one(number)

    def _start_one(self, number: int) -> None:
        if self._gpus:
            visible = (number % self._gpus,)
            self._executor.update_parameters(gpus_per_node=1, visible_gpus=visible)
        with _interrupts_ignored():  # by submitit's own process: we end the workers ourselves
            self._jobs[number] = self._executor.submit(work, *self._arguments)

    def running(self) -> bool:
        """Whether any worker still works; restarts crashed ones, a few times."""
        for number, job in [(n, job) for n, job in self._jobs.items() if job.done()]:
            del self._jobs[number]
            if self._died(job) and self._restarts < RESTARTS:
                self._restarts += 1
                self._start_one(number)
        return bool(self._jobs)

    @staticmethod
    def _died(job: submitit.Job[int]) -> bool:
        try:
            return job.exception() is not None
        except submitit.core.utils.UncompletedJobError:
            return True

    def stop(self) -> None:
        """Ask workers to end; each checkpoints the run that it trains."""
        running = [job for job in self._jobs.values() if not job.done()]
        for job in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)  # submitit passes it on
        while not all(job.done() for job in running):
            time.sleep(0.05)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """What is started within ignores Ctrl-C, which a terminal sends to every process below it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP end the launch as Ctrl-C does: workers checkpoint and stop with it.
    Nothing ends it at once, as an import that is interrupted does: workers would be left."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    names = [signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        names.append(signal.SIGINT)
    before = {name: signal.signal(name, interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _let_children_import_us() -> None:
    root = str(Path(__file__).resolve().parents[2])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, paths)])


def _show_until_ended(pool: _Pool, view: StudyView, console: Console, workers: int) -> None:
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while pool.running():
                look = view.look(workers)
                live.update(board(look, console.width, console.height), refresh=True)
                time.sleep(REFRESH_S)
            live.update(board(view.look(), console.width), refresh=True)
        return
    seen: set[str] = set()
    while pool.running():
        _print_ended(view, seen, console, workers)
        time.sleep(REFRESH_S)
    _print_ended(view, seen, console, workers)


def _print_ended(view: StudyView, seen: set[str], console: Console, workers: int) -> None:
    """Without a terminal: a line for each run as it ends."""
    rows = view.rows()
    for row in rows:
        if row.name in seen or row.state not in (*FINISHED, "failed"):
            continue
        seen.add(row.name)
        hours = view.remaining_hours(workers)
        loss = "" if row.loss is None else f" loss {row.loss:.4f}"
        loss += f" ({row.bits_per_byte:.4f} bits/B)" if row.bits_per_byte else ""
        speed = "" if not row.tokens_per_s else f" {row.tokens_per_s:,.0f} tokens/s"
        eta = "" if hours is None else f" ETA {duration(hours)}"
        line = f"[{len(seen)}/{len(rows)}] {row.name} {row.state}{loss}{speed}{eta}"
        console.print(line, highlight=False, soft_wrap=True)
    sys.stdout.flush()
