"""Slurm, through submitit: one array of workers that share a plan, submitted in a moment.

Each array element is the same worker as in a local pool: it takes runs from the plan until none is
left, so short runs are packed into one job, and a job that ends early (time limit, preemption)
leaves checkpoints from which the next launch of the same command goes on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import submitit
from rich.console import Console

from mor.config import UserError
from sweeps.config import SlurmConfig, SweepConfig
from sweeps.launch.files import add_to_study, new_launch
from sweeps.ledger import Ledger
from sweeps.plan import Plan
from sweeps.worker import work


def launch_slurm(plan: Plan, ledger: Ledger, study: SweepConfig, console: Console) -> list[str]:
    """Submit workers for a plan and return their job ids at once.

    Raises UserError where there is no Slurm or it refuses the submission; nothing runs then.
    """
    left = plan.totals()["remaining"]["runs"]
    if left == 0:
        console.print(f"all {len(plan.runs)} runs of study {plan.study} are done already")
        return []
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError(
            "launch=slurm: sbatch and srun are not on the PATH of this machine; type launch=local "
            "to train here, or log in to a node that submits"
        )
    launch = new_launch(plan, ledger, Path(study.studies_dir).absolute() / plan.study)
    executor = submitit.SlurmExecutor(launch.folder / "workers")
    executor.update_parameters(**_parameters(plan, study.launch.slurm))
    workers = study.launch.workers or len({run.trunk_id or run.run_id for run in plan.runs})
    argument_lists = [[argument] * workers for argument in launch.arguments]
    try:
        jobs = executor.map_array(work, *argument_lists)
    except (subprocess.SubprocessError, submitit.core.utils.FailedJobError) as error:
        words = " ".join(str(error).split())[-200:]
        raise UserError(
            f"launch=slurm: sbatch refused ({words}); change launch.slurm.partition or what stands "
            "beside it in conf/launch/local.yaml, or type launch=local to train here"
        ) from None
    add_to_study(launch)
    ids = [job.job_id for job in jobs]
    last = f" ... {ids[-1]}" if len(ids) > 1 else ""
    console.print(
        f"{left} runs submitted as {len(ids)} jobs: {ids[0]}{last}\n"
        f"python -m sweeps status {plan.study}   shows what they do\n"
        f"squeue --me   shows where they wait; type the same command again to go on after an end",
        highlight=False,
        soft_wrap=True,
    )
    return ids


def _parameters(plan: Plan, slurm: SlurmConfig) -> dict[str, Any]:
    """submitit's parameters of one worker's job."""
    given = {
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "time": slurm.timeout_min,
        "gpus_per_node": slurm.gpus_per_node or None,
        "cpus_per_task": slurm.cpus_per_task,
        "mem": f"{slurm.mem_gb}G" if slurm.mem_gb else None,
    }
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {
        "job_name": plan.study,
        "setup": [f"export PYTHONPATH={paths}"],
        **{name: value for name, value in given.items() if value is not None},
    }
