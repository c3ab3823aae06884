"""Speeds measured on the nodes that a study will run on: short arrays, one a shape of job."""

from __future__ import annotations

import contextlib
import math
import subprocess
import time
from pathlib import Path

import submitit

from ledger.errors import UserError
from ledger.provenance import ROOT
from mor.config import Config, to_dict
from sweeps.backends.base import Measurements
from sweeps.backends.slurm import checks, cluster, flags
from sweeps.backends.slurm.submit import for_submitit
from sweeps.measuring import measure_into, say_ended
from sweeps.resources import Shape, shape_of

OVERHEAD_MIN = 5  # of a job: starting Python, building the model, compiling, the search for memory
POLL_S = 1.0
FOLDER = ".benchmarks"  # in studies_dir: what submitit writes, and the logs


def measure_there(asked: Measurements) -> None:
    """Submit, wait for all, and say what failed. Ctrl-C cancels the jobs.

    Raises UserError where there is no Slurm, or it would not take the jobs.
    """
    slurm, facts = asked.study.launch.slurm, cluster.ask()
    pricing = checks.with_node(asked.study.cluster, checks.partition_of(slurm, facts))
    by_shape: dict[Shape, list[Config]] = {}
    for config in asked.configs:
        by_shape.setdefault(shape_of(config, slurm, pricing), []).append(config)
    minutes = OVERHEAD_MIN + math.ceil(asked.seconds / 60)
    folder = Path(asked.study.studies_dir).absolute() / FOLDER
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    jobs: list[tuple[Config, submitit.Job[None]]] = []
    try:
        for shape, configs in by_shape.items():
            flagged = flags.flags_of(shape, minutes, slurm, "benchmark")
            executor = submitit.SlurmExecutor(folder)
            executor.update_parameters(**for_submitit(flagged, minutes, slurm, ROOT, len(configs)))
            columns: list[list[object]] = [
                [to_dict(config) for config in configs],
                [asked.seconds] * len(configs),
                [str(asked.runs_dir)] * len(configs),
            ]
            jobs += zip(configs, _submitted(executor, columns), strict=True)
        ids = ", ".join(sorted({str(job.job_id).split("_")[0] for _, job in jobs}))
        asked.console.print(f"waiting for jobs {ids}; logs in {folder}", soft_wrap=True)
        left = list(jobs)
        while left:
            ended = [pair for pair in left if pair[1].done()]
            for config, job in ended:
                say_ended(config, job, asked.console)
            left = [pair for pair in left if pair not in ended]
            time.sleep(POLL_S if left else 0)
    except BaseException:
        for _, job in jobs:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                job.cancel()
        raise


def _submitted(
    executor: submitit.SlurmExecutor, columns: list[list[object]]
) -> list[submitit.Job[None]]:
    try:
        return list(executor.map_array(measure_into, *columns))
    except (subprocess.SubprocessError, submitit.core.utils.FailedJobError) as error:
        words = " ".join(str(error).split())[-200:]
        raise UserError(
            f"launch.calibrate: sbatch refused ({words}); change launch.slurm, or leave "
            "launch.calibrate out"
        ) from None
