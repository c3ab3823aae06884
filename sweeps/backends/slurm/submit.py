"""A plan as arrays of jobs with dependencies, submitted through submitit in a moment.

`sweeps.backends.slurm.jobs` says what the jobs are; here they get their resources and time limits,
the cluster is asked whether it can run them, and each array is submitted and written down. What is
done, and what a job of an earlier launch is queued for, is not submitted again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import submitit
from rich.console import Console

from ledger.errors import UserError
from ledger.files import locked
from ledger.result import FINISHED
from sweeps.backends.base import Submission
from sweeps.backends.slurm import checks, cluster, flags
from sweeps.backends.slurm.data_jobs import (
    data_arrays,
    data_settings,
    data_shape,
    refuse_without_network,
    wait_for_data,
)
from sweeps.backends.slurm.element import run_element
from sweeps.backends.slurm.jobs import Array, arrays_of, nodes_left
from sweeps.backends.submitted import Record, queued_tasks
from sweeps.config import SlurmConfig
from sweeps.launches import Launch, add_to_study, keep_settings, new_launch
from sweeps.plan import Plan
from sweeps.resources import Shape, shape_of
from sweeps.snapshot import take_snapshot
from sweeps.tables import counted, duration
from sweeps.tasks import Task

LOST_WITHOUT_ACCOUNTING = (
    "this Slurm keeps no accounting: whether a job that left the queue ran out of time, memory or "
    "its node is not known; the runs are not affected"
)


def submit_plan(submission: Submission) -> list[str]:
    """Submit what is left of a plan and return the ids of the arrays at once.

    Raises UserError where there is no Slurm, or it could not run the jobs: nothing is submitted.
    """
    plan, console = submission.plan, submission.console
    if not plan.graph.left():
        _save(submission)
        console.print(f"all {len(plan.runs)} runs of study {plan.study} are done already")
        return []
    # two submissions at once would both find an empty queue
    with locked(Path(submission.study.studies_dir).absolute() / ".submit.lock"):
        return _submit_plan(submission)


def _submit_plan(submission: Submission) -> list[str]:
    plan, ledger = submission.plan, submission.ledger
    study, console = submission.study, submission.console
    slurm, facts = study.launch.slurm, cluster.ask()
    studies_dir = Path(study.studies_dir).absolute()
    partition = checks.partition_of(slurm, facts)
    pricing = checks.with_node(study.cluster, partition)
    queued = queued_tasks(studies_dir, ledger.runs_dir)

    def asks(task: Task) -> Shape:
        return data_shape(slurm.data) if task.is_data else shape_of(task.config, slurm, pricing)

    left = nodes_left(plan.graph, asks, queued)
    nodes = [node for node in left if not node.task.is_data]
    if not nodes:
        _save(submission)
        console.print(f"all runs of study {plan.study} that are left are in the queue already")
        return []
    refuse_without_network(plan, slurm)
    arrays = arrays_of(nodes, queued, 60 * slurm.pack_min, facts.max_array_size)
    data = data_arrays((node for node in left if node.task.is_data), queued)
    wait_for_data(arrays, data, queued)
    checks.refuse_too_large({node.shape for node in nodes}, slurm, partition)
    for_data = data_settings(slurm)
    of_data = checks.partition_of(for_data, facts) if data else partition
    checks.refuse_too_large({array.shape for array in data}, for_data, of_data)
    checks.refuse_too_expensive(nodes, plan, study)
    checks.refuse_full(plan, ledger, study)
    jobs = [(a, for_data, time_limit(a, for_data, of_data.limit_min)) for a in data]
    jobs += [(a, slurm, time_limit(a, slurm, partition.limit_min)) for a in arrays]
    _refuse_rejected(jobs, plan.study)
    if not facts.accounting:
        console.print(LOST_WITHOUT_ACCOUNTING, soft_wrap=True)

    launch = new_launch(plan, ledger, studies_dir / plan.study)
    code = take_snapshot(launch.folder.code)
    if code["git_commit"] is None:
        console.print("no git checkout: the jobs run from a copy of the installed packages")
    add_to_study(launch)
    keep_settings(study, "slurm")
    record = Record(launch.folder, ledger.runs_dir, code)
    for array, settings, limit in jobs:
        with _undisturbed():
            _submit(array, parameters(array, limit, settings, launch, plan.study), launch)
            shape = {**dataclasses.asdict(array.shape), "timeout_min": limit}
            tasks = [(array.job_id(i), unit.tasks) for i, unit in enumerate(array.units)]
            record.add(str(array.array_id), shape, array.dependency(), tasks)
    arrays = [array for array, _, _ in jobs]
    _report(plan, arrays, queued, console)
    return [str(array.array_id) for array in arrays]


def _save(submission: Submission) -> None:
    """Write a launch that submits nothing: its study has its runs all the same."""
    study, plan = submission.study, submission.plan
    folder = Path(study.studies_dir).absolute() / plan.study
    add_to_study(new_launch(plan, submission.ledger, folder))
    keep_settings(study, "slurm")


def time_limit(array: Array, slurm: SlurmConfig, limit_min: int | None) -> int:
    """Minutes: as set, else what the plan's cost says, at most the partition's limit."""
    wanted = slurm.timeout_min or array.minutes(slurm.time_margin)
    return min(wanted, limit_min or wanted)


def parameters(
    array: Array, minutes: int, slurm: SlurmConfig, launch: Launch, study: str
) -> dict[str, Any]:
    """submitit's parameters of one array."""
    asked = flags.flags_of(array.shape, minutes, slurm, study, array.dependency())
    parallel = slurm.array_parallelism or len(array.units)
    return for_submitit(asked, minutes, slurm, launch.folder.code, parallel)


def for_submitit(
    asked: flags.Flags, minutes: int, slurm: SlurmConfig, code: Path, parallel: int
) -> dict[str, Any]:
    """The flags of sbatch as submitit takes them, for jobs that import `code`."""
    limit = flags.minutes_of(asked.get("time"), minutes)
    del asked["signal"]  # submitit writes it
    cpus = asked.get("cpus-per-task")
    known = {name.replace("_", "-"): name for name in submitit.SlurmExecutor._valid_parameters()}
    # one of submitit's own defaults that is left out is left out there, too
    own = {known[flag]: asked.pop(flag, None) for flag in ("job-name", "nodes", "time", "wckey")}
    own |= {known[flag]: asked.pop(flag) for flag in [*asked] if flag in known}
    return {
        **own,
        "signal_delay_s": flags.warning_s(limit),
        "array_parallelism": parallel,
        # not inherited since 22.05
        "srun_args": [] if cpus is None else [f"--cpus-per-task={cpus}"],
        "setup": _setup(slurm, code),
        "additional_parameters": asked,
    }


def _setup(slurm: SlurmConfig, code: Path) -> list[str]:
    """Shell lines in front of the worker: it imports the snapshot and nothing from where it
    stands."""
    path = f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}"
    return [*slurm.setup, "export PYTHONSAFEPATH=1", path]


def _submit(array: Array, given: dict[str, Any], launch: Launch) -> None:
    """Submit one array. Raises UserError where Slurm refuses it."""
    executor = submitit.SlurmExecutor(launch.folder.workers)  # a new one: it would wait 0.2 s
    executor.update_parameters(**given)
    units = [unit.tasks for unit in array.units]
    columns = [[argument] * len(units) for argument in launch.arguments]
    try:
        jobs = executor.map_array(run_element, *columns, units)
    except (subprocess.SubprocessError, submitit.core.utils.FailedJobError) as error:
        words = " ".join(str(error).split())[-200:]
        raise UserError(
            f"launch=slurm: sbatch refused ({words}); what was submitted before goes on, and the "
            "same command submits the rest"
        ) from None
    array.array_id = str(jobs[0].job_id).split("_")[0]


def _refuse_rejected(jobs: list[tuple[Array, SlurmConfig, int]], study: str) -> None:
    """Raises UserError where sbatch would not take a job of some shape."""
    longest: dict[tuple[Shape, str | None], tuple[SlurmConfig, int]] = {}
    for array, settings, limit in jobs:
        key = (array.shape, settings.partition)
        longest[key] = (settings, max(limit, longest.get(key, (settings, 0))[1]))
    for (shape, _), (settings, limit) in longest.items():
        asked = flags.flags_of(shape, limit, settings, study)
        reason = cluster.rejection(flags.command_line(asked))
        if reason:
            words = ", ".join(f"{name}={value}" for name, value in asked.items())
            raise UserError(
                f"launch=slurm: sbatch would refuse a job of {words} ({reason}); change the "
                "settings under launch.slurm, nothing was submitted"
            )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and the like wait until an array is submitted and written down."""
    held: list[int] = []
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {name: signal.signal(name, lambda number, _: held.append(number)) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    if held:
        print("what was submitted goes on; the same command submits the rest", file=sys.stderr)
        signal.raise_signal(held[0])


def _report(plan: Plan, arrays: list[Array], queued: dict[str, str], console: Console) -> None:
    nodes = [node for array in arrays for unit in array.units for node in unit.nodes]
    corpora = {node.task.config.data.name for node in nodes if node.task.is_data}
    first = f"; first {', '.join(sorted(corpora))} is prepared" if corpora else ""
    nodes = [node for node in nodes if not node.task.is_data]
    runs = sum(node.task.is_run for node in nodes)
    scored = sum(node.task.is_evaluation for node in nodes)
    evaluations = f" and {counted(scored, 'evaluation')}" if scored else ""
    elements = sum(len(array.units) for array in arrays)
    waiting = sum(run.run_id in queued for run in plan.runs if run.status not in FINISHED)
    ids = [str(array.array_id) for array in arrays]
    last = f" ... {ids[-1]}" if len(ids) > 1 else ""
    cost = duration(checks.gpu_hours(nodes))
    already = f"; {waiting} runs are in the queue already" if waiting else ""
    console.print(
        f"{counted(runs, 'run')}{evaluations} submitted as {counted(elements, 'job')} in "
        f"{counted(len(arrays), 'array')}: {ids[0]}{last} "
        f"(about {cost} of {plan.gpu} time){already}{first}\n"
        f"python -m sweeps watch {plan.study}",
        highlight=False,
        soft_wrap=True,
    )
