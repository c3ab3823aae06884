"""Speeds before a study: each model and size without one trains for a minute where it will train.

Prices, time limits and ETAs then rest on it in place of an assumed share of the peak.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import submitit
from rich.console import Console

from ledger.errors import UserError
from ledger.plan_file import StudyFolder
from ledger.speeds import Speed, read_speed, speed_file, write_speed
from ledger.store import Ledger
from mor.config import Config, from_dict, to_dict
from mor.speed_settings import speed_settings
from sweeps.backends.base import Backend, Measurements
from sweeps.config import SweepConfig
from sweeps.prices import measured_flops_per_s

NO_LIMIT_MIN = 60 * 24
POLL_S = 0.2


def calibrate(
    study: SweepConfig,
    configs: Sequence[Config],
    backend: Backend,
    console: Console,
    again: bool = False,
) -> list[Speed]:
    """Measure one configuration of each model and size that has no measured speed on this backend's
    device; `again`: of all. Returns the speeds of all that were asked about and have one.

    Raises ConfigError for a device that is not there.
    """
    runs_dir = Path(study.runs_dir).absolute()
    machine = backend.prepare(study, list(configs))
    known = {} if again else measured_flops_per_s(Ledger(runs_dir), machine.gpu)
    chosen = {(c.model.name, c.size.name): c for c in reversed(configs)}
    left = [config for key, config in chosen.items() if key not in known]
    if left:
        console.print(
            f"measuring {len(left)} of {len(chosen)} models and sizes for about "
            f"{study.launch.calibrate_s:g} s each",
            highlight=False,
        )
        runs_dir.mkdir(parents=True, exist_ok=True)
        backend.measure(Measurements(left, study.launch.calibrate_s, runs_dir, study, console))
    found = [one for c in chosen.values() if (one := read_speed(file_of(runs_dir, c)))]
    if not left and not found:
        launched = StudyFolder(Path(study.studies_dir) / study.study.name).plan_file.is_file()
        again_with = f"; python -m sweeps benchmark {study.study.name} --again measures them"
        console.print(
            "every model and size has the speed of a finished run" + again_with * launched,
            highlight=False,
            soft_wrap=True,
        )
    return found


def file_of(runs_dir: Path, config: Config) -> Path:
    """Where the speed of a configuration stands."""
    return speed_file(runs_dir, config.model.name, config.size.name, speed_settings(config))


def measure_into(values: dict[str, Any], seconds: float, runs_dir: str) -> None:
    """What a job does: measure, and write where the plan looks. Rank 0 writes."""
    from mor.train.distributed import join
    from mor.train.measure import measure

    config = from_dict(Config, values)
    found = measure(config, seconds)
    if join().first:
        write_speed(file_of(Path(runs_dir), config), found)


def measure_here(asked: Measurements, workers: int, gpus: int = 0) -> None:
    """Measure in processes on this machine, `workers` at a time: as a study will run."""
    with tempfile.TemporaryDirectory() as folder:
        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(timeout_min=NO_LIMIT_MIN)
        waiting = list(asked.configs)
        running: dict[int, tuple[Config, submitit.Job[None]]] = {}
        try:
            while waiting or running:
                for number in set(range(workers)) - running.keys():
                    if waiting:
                        if gpus:
                            visible = (number % gpus,)
                            executor.update_parameters(gpus_per_node=1, visible_gpus=visible)
                        running[number] = _begin(executor, waiting.pop(0), asked)
                for number, (config, job) in [*running.items()]:
                    if job.done():
                        say_ended(config, job, asked.console)
                        del running[number]
                time.sleep(POLL_S)
        finally:
            for _, job in running.values():
                with contextlib.suppress(ProcessLookupError):
                    job.cancel()


def _begin(
    executor: submitit.Executor, config: Config, asked: Measurements
) -> tuple[Config, submitit.Job[None]]:
    arguments = (to_dict(config), asked.seconds, str(asked.runs_dir))
    return config, executor.submit(measure_into, *arguments)


def say_ended(config: Config, job: submitit.Job[None], console: Console) -> None:
    """Print why a measurement failed; its model is priced at the assumed MFU."""
    name = f"{config.model.name} {config.size.name}"
    try:
        failure = job.exception()
        words = str(failure).strip().splitlines()[-1:] if failure else []
    except (submitit.core.utils.UncompletedJobError, UserError) as error:
        words = str(error).strip().splitlines()[:1] or [type(error).__name__]
    if words:
        console.print(
            f"{name}: not measured ({words[0]}); priced at the assumed MFU",
            highlight=False,
            soft_wrap=True,
        )


def as_rows(found: Iterable[Speed]) -> list[tuple[str, ...]]:
    """model, size, device, tokens/s, MFU, memory, micro-batch, steps: as text for a table."""
    return [
        (
            one.model,
            one.size,
            one.device if one.devices == 1 else f"{one.devices} x {one.device}",
            f"{one.tokens_per_s:,.0f}",
            "-" if one.mfu is None else f"{100 * one.mfu:.1f} %",
            "-" if one.peak_memory_gb is None else f"{one.peak_memory_gb:.2f} GB",
            "all" if one.micro_batch is None else str(one.micro_batch),
            f"{one.steps} in {one.seconds:.1f} s",
        )
        for one in found
    ]


def print_speeds(found: Iterable[Speed], console: Console) -> None:
    """The table of what was measured, if anything was."""
    from rich import box
    from rich.table import Table

    rows = as_rows(found)
    if not rows:
        return
    columns = ("model", "size", "device", "tokens/s", "MFU", "memory", "micro-batch", "steps")
    table = Table(box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 3 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False)
