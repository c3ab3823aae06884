"""A bounded pool of workers on this machine, as submitit local jobs, with a live table."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from rich.console import Console
from rich.live import Live

from mor.config import ConfigError
from mor.devices import PEAK_TFLOPS, peak_tflops
from mor.train.folder import write_json
from sweeps.config import ClusterConfig, LaunchConfig
from sweeps.ledger import Ledger
from sweeps.plan import FINISHED, Plan
from sweeps.tables import duration
from sweeps.watch import StudyView, study_table
from sweeps.worker import work

REFRESH_S = 1.0
RESTARTS = 3  # of workers that died, per launch
NO_LIMIT_MIN = 60 * 24 * 365


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    done: int
    failed: int
    left: int  # stopped, or held by another launch that ended


def this_machine() -> ClusterConfig:
    """What a local launch is priced on: the GPU here, or one CPU core."""
    if shutil.which("nvidia-smi"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
            names = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
            name = names.stdout.strip().lower().replace(" ", "")
            known = [key for key in PEAK_TFLOPS if key in name]
            if known and peak_tflops(name):
                return ClusterConfig(max(known, key=len), 0.4)
    return ClusterConfig("cpu", 0.3)


def pool_size(plan: Plan, launch: LaunchConfig, gpu: str) -> int:
    """Workers at a time: as set, or one for each GPU, or CPU cores over threads per run."""
    if launch.workers is not None:
        if launch.workers < 1:
            raise ConfigError(
                "launch.workers", launch.workers, "must be above 0", "leave it out for all cores"
            )
        return launch.workers
    if gpu != "cpu":
        return 1
    threads = max((run.config.runtime.threads for run in plan.runs), default=1)
    return max(1, len(os.sched_getaffinity(0)) // threads)


def refuse_too_long(plan: Plan, launch: LaunchConfig, workers: int) -> None:
    """Raises ConfigError where this machine needs longer than `launch.max_hours`.

    `plan` is priced on this machine.
    """
    hours = plan.totals()["remaining"]["gpu_hours"] / workers
    if hours > launch.max_hours and not launch.force:
        raise ConfigError(
            "launch.max_hours",
            f"{launch.max_hours:g}",
            f"this plan needs about {duration(hours)} on this machine ({plan.gpu}, {workers} at a "
            "time)",
            "type launch=plan to see it priced, study=quick for one that fits, "
            "or launch.force=true to start it here all the same",
        )


def launch_local(
    plan: Plan,
    ledger: Ledger,
    launch: LaunchConfig,
    study_folder: Path,
    workers: int,
    console: Console,
) -> Outcome:
    """Carry out a plan with a pool of `workers` processes; blocks until all runs have ended."""
    launch_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    folder = study_folder / "launches" / launch_id
    folder.mkdir(parents=True)
    contents = plan.as_json(configs=True)
    write_json(folder / "plan.json", contents)
    write_json(study_folder / "plan.json", {**contents, "runs_dir": str(ledger.runs_dir)})
    pool = _Pool(folder, (folder / "plan.json", ledger.runs_dir, launch_id, plan.study))
    view = StudyView(folder / "plan.json", ledger)
    with contextlib.ExitStack() as stack:
        stack.callback(pool.stop)
        pool.start(min(workers, max(1, _parallel(plan))))
        _show_until_ended(pool, view, console, workers)
    return _summary(plan, ledger, console, launch_id)


def _parallel(plan: Plan) -> int:
    """How many tasks of the plan can ever run at once."""
    return len({run.trunk_id or run.run_id for run in plan.runs}) + len(plan.runs)


class _Pool:
    """Worker processes as submitit jobs; one that dies while work is left is started again."""

    def __init__(self, folder: Path, arguments: tuple[Any, ...]) -> None:
        _let_children_import_us()
        self._executor = submitit.LocalExecutor(folder / "workers")
        self._executor.update_parameters(timeout_min=NO_LIMIT_MIN)
        self._arguments = arguments
        self._jobs: list[submitit.Job[int]] = []
        self._restarts = 0

    def start(self, workers: int) -> None:
        for _ in range(workers):
            self._jobs.append(self._executor.submit(work, *self._arguments))

    def running(self) -> bool:
        """Whether any worker still works; starts those that died again, a few times."""
        for job in [job for job in self._jobs if job.done()]:
            self._jobs.remove(job)
            if self._died(job) and self._restarts < RESTARTS:
                self._restarts += 1
                self.start(1)
        return bool(self._jobs)

    @staticmethod
    def _died(job: submitit.Job[int]) -> bool:
        try:
            return job.exception() is not None
        except submitit.core.utils.UncompletedJobError:
            return True

    def stop(self) -> None:
        """Ask workers to end; each checkpoints the run that it has in hand."""
        for job in self._jobs:
            if not job.done():
                job.cancel()
        for job in self._jobs:
            while not job.done():
                time.sleep(0.1)


def _let_children_import_us() -> None:
    root = str(Path(__file__).resolve().parents[2])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, paths)])


def _show_until_ended(pool: _Pool, view: StudyView, console: Console, workers: int) -> None:
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while pool.running():
                live.update(study_table(view, workers, hide_waiting=True), refresh=True)
                time.sleep(REFRESH_S)
            live.update(study_table(view, workers), refresh=True)
        return
    seen: set[str] = set()
    while pool.running():
        _print_ended(view, seen, console)
        time.sleep(REFRESH_S)
    _print_ended(view, seen, console)


def _print_ended(view: StudyView, seen: set[str], console: Console) -> None:
    """Without a terminal: a line for each run as it ends."""
    rows = view.rows()
    for row in rows:
        if row.name in seen or row.state not in (*FINISHED, "failed"):
            continue
        seen.add(row.name)
        hours = view.remaining_hours(1)
        loss = "" if row.loss is None else f" loss {row.loss:.4f}"
        speed = "" if not row.tokens_per_s else f" {row.tokens_per_s:,.0f} tokens/s"
        eta = "" if hours is None else f" ETA {duration(hours)}"
        line = f"[{len(seen)}/{len(rows)}] {row.name} {row.state}{loss}{speed}{eta}"
        console.print(line, highlight=False, soft_wrap=True)
    sys.stdout.flush()


def _summary(plan: Plan, ledger: Ledger, console: Console, launch_id: str) -> Outcome:
    """Say what failed, with the last lines of its log and where the log is."""
    states = {run.run_id: ledger.state(run.run_id) for run in plan.runs}
    done = sum(state == "done" for state in states.values())
    ended_badly = [name for name, state in states.items() if state in ("failed", "diverged")]
    trunks = {run.trunk_id for run in plan.runs if states[run.run_id] != "done" and run.trunk_id}
    for name in [*ended_badly, *sorted(trunks)]:
        folder = ledger.folder(name)
        status = folder.status() or {}
        if status.get("state") not in ("failed", "diverged"):
            continue
        console.print(f"[red]{status['state']}[/red] {name}: {status.get('error')}", soft_wrap=True)
        for line in folder.log_tail():
            console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"    log: {folder.log_file}", highlight=False, soft_wrap=True)
    left = len(states) - done - len(ended_badly)
    return Outcome(done, len(ended_badly), left)
