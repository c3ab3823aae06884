"""The flags of sbatch: the same for the check before a submission and for the submission."""

from __future__ import annotations

from typing import Any

from sweeps.config import SlurmConfig
from sweeps.resources import Shape


def asked_for(shape: Shape, minutes: int, slurm: SlurmConfig) -> dict[str, Any]:
    """What a job of some shape asks for, by the long names of sbatch; without what is not set."""
    asked = {
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "time": minutes,
        "nodes": shape.nodes,
        "ntasks-per-node": shape.tasks_per_node,
        "cpus-per-task": shape.cpus_per_task,
        "mem": f"{shape.mem_gb}G",
        "gpus-per-node": shape.gpus_per_node or None,
    }
    return {name: value for name, value in asked.items() if value is not None}


def set_by_hand(slurm: SlurmConfig) -> dict[str, Any]:
    """launch.slurm.sbatch, by the long names of sbatch."""
    return {name.replace("_", "-"): value for name, value in slurm.sbatch.items()}


def command_line(flags: dict[str, Any]) -> list[str]:
    """Flags as sbatch's arguments."""
    return [f"--{name}" if v is True else f"--{name}={v}" for name, v in flags.items()]
