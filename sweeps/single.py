"""One run in this process: its trunk, if it is not trained yet, and its cool-down."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ledger.errors import UserError
from ledger.folder import RunFolder
from ledger.store import Ledger
from mor.evaluate.show import lines_of
from mor.model.components import router_of
from mor.train.tracking import refuse_without_key
from sweeps import backends
from sweeps.config import run_config, sweep_config
from sweeps.corpora import say_corpora
from sweeps.damage import say_damage
from sweeps.definition import finish
from sweeps.mistakes import RunStopped
from sweeps.places import refuse_no_cache, refuse_unwritable
from sweeps.plan import build_plan
from sweeps.ranks import follow, following
from sweeps.routing import print_routing
from sweeps.study import refuse_full, task_sets, with_fingerprints, write_plan_file
from sweeps.tables import print_plan
from sweeps.task_queue import Queue
from sweeps.tasks import Task
from sweeps.terminal import plain_console
from sweeps.worker import Stop, stop_on_signals, work_on


def run_single(values: dict[str, Any], typed: set[str]) -> None:
    """Train the run that a composed configuration describes, and print its result.

    `typed` are the settings of the command line. Under torchrun this process does its part of it.

    Raises ConfigError for what cannot be trained, UserError where the run failed.
    """
    if following():
        follow(stop_on_signals())
        return
    study, console = sweep_config(values), plain_console()
    [config] = with_fingerprints([finish(run_config(values), study.study, typed)])
    ledger = Ledger(Path(study.runs_dir).absolute(), backends.this_job())
    plan = build_plan(study.study.name, [config], ledger, study.cluster, task_sets(study))
    say_damage(plan, console)
    if study.launch.plan_file:
        write_plan_file(plan, Path(study.launch.plan_file).expanduser())
    if study.launch.mode == "plan":
        print_plan(plan, console)
        say_corpora(plan, console)
        return
    if study.launch.mode == "slurm":
        raise UserError("launch.mode=slurm: one run without -m trains in this process; add -m")
    from sweeps.backends.local import refuse_too_long, refuse_without_gpu, this_machine

    refuse_too_long(plan.priced_on(this_machine([config])), study.launch, workers=1)
    refuse_unwritable("runs_dir", ledger.runs_dir)
    refuse_no_cache(plan)
    refuse_full(plan)
    refuse_without_key([config])
    refuse_without_gpu([config])
    say_corpora(plan, console)
    [run] = plan.runs
    queue = Queue(plan.graph, ledger, uuid.uuid4().hex)
    stop = stop_on_signals()
    with _progress(console) as progress:
        work_on(queue, plan.study, stop, _Bars(progress))
    folder = ledger.folder(run.run_id)
    result = folder.result()
    if result is None and stop.is_set():
        by = stop.signal_name or "another of its processes"
        raise RunStopped(
            f"run {run.run_id}: stopped by {by}, its state is in a checkpoint; "
            "type the same command again to go on from there"
        )
    if result is None or not result.done:
        blame = [folder] + ([ledger.folder(run.trunk_id)] if run.trunk_id else [])
        for one in blame:
            error = (one.status() or {}).get("error")
            if error:
                raise UserError(f"run {run.run_id}: {error}; its log: {one.log_file}")
        raise UserError(f"run {run.run_id}: it did not end; type the same command again to go on")
    loss = result.loss
    nll = f"{loss['val_nll_causal']:.4f} nats per token"
    if router_of(config.model).chooses_tokens:
        nll += f" (causal), {loss['val_nll_topk']:.4f} (top-k)"
    bits = result.bits_per_byte()
    nll += f", {bits:.4f} bits per byte" if bits else ""
    console.print(
        f"{run.run_id}: validation loss {nll}; spent {result.flops.spent:.4g} of "
        f"{result.budget:.4g} {result.convention} FLOPs, {result.tokens:,} tokens\n"
        f"{os.path.relpath(folder.result_file)}",
        highlight=False,
        soft_wrap=True,
    )
    print_routing([result], console)
    show_evaluations(folder, [t for t in plan.graph if t.is_evaluation], console, stop)


def show_evaluations(folder: RunFolder, tasks: list[Task], console: Console, stop: Stop) -> None:
    """Print the scores of a run. Raises UserError where it has none, RunStopped where it was asked
    to stop."""
    for task in tasks:
        found = folder.evaluation(task.task_set)
        if found is None or found.fingerprint != task.fingerprint:
            if stop.is_set():
                raise RunStopped(
                    f"run {folder.run_id}: stopped while it was scored on {task.task_set}; "
                    "type the same command again"
                )
            error = (folder.status() or {}).get("error") or "it did not end"
            raise UserError(
                f"run {folder.run_id}: {error}; its log: {folder.log_file}; the run itself is done"
            )
        console.print("\n".join(lines_of(found)), highlight=False, soft_wrap=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[numbers]}", markup=False),
        TimeRemainingColumn(),
        console=console,
    )


class _Bars:
    """A progress bar for each task: share of the budget spent, loss, tokens per second."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, Any] = {}

    def __call__(self, task: Task, numbers: dict[str, Any]) -> None:
        if task.task_id not in self._bars:
            self._bars[task.task_id] = self._progress.add_task(
                task.task_id, total=task.goal, numbers=""
            )
        loss = numbers.get("loss")
        text = f"{numbers.get('tokens', 0):,} tokens" if task.is_data else ""
        if loss is not None:
            text = f"loss {loss:.4f}  {numbers['tokens_per_s']:,.0f} tokens/s"
        self._progress.update(self._bars[task.task_id], completed=numbers["spent"], numbers=text)
