"""The flags of sbatch: one mapping for the check before a submission and for the submission.

What stands under launch.slurm.sbatch replaces a flag of ours, whichever way it is written, and
flags of ours that Slurm does not take beside it; false and null leave a flag out.
"""

from __future__ import annotations

import math
import re
from typing import Any

from mor.config import ConfigError
from sweeps.config import SlurmConfig
from sweeps.resources import Shape

Flags = dict[str, Any]  # long names of sbatch; True: without a value

WARNING_S = 120  # before the time limit: enough for the current step and a checkpoint
ALTERNATIVES = (  # Slurm takes one of each set
    {"mem", "mem-per-cpu", "mem-per-gpu"},
    {"gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket"},
    {"cpus-per-task", "cpus-per-gpu"},
    {"requeue", "no-requeue"},
)
OURS = {  # what the plan, its record and its checkpoints depend on
    "array": "one array for each shape of job",
    "output": "the logs of the launch are found by it",
    "error": "the logs of the launch are found by it",
    "open-mode": "a job that is requeued writes on",
    "signal": "a worker writes its checkpoint at it",
    "parsable": "the job's number is read from the answer",
    "wrap": "a job runs the worker",
    "test-only": "nothing would be submitted",
    "wait": "a launch returns at once",
}


def flags_of(
    shape: Shape, minutes: int, slurm: SlurmConfig, name: str, dependency: str | None = None
) -> Flags:
    """Everything that a job of some shape is submitted with, but its array and where it writes.

    Raises ConfigError for a flag under launch.slurm.sbatch that cannot be replaced.
    """
    ours = {
        "job-name": name,
        "wckey": "submitit",
        "requeue": True,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "time": minutes,
        "nodes": shape.nodes,
        "ntasks-per-node": shape.tasks_per_node,
        "cpus-per-task": shape.cpus_per_task,
        "mem": _gb(shape.mem_gb),
        "mem-per-cpu": _gb(shape.mem_per_cpu_gb),
        "mem-per-gpu": _gb(shape.mem_per_gpu_gb) if shape.gpus else None,
        **_gpus(shape, slurm.gpus),
        "dependency": dependency,
        "kill-on-invalid-dep": "yes" if dependency else None,
    }
    theirs = set_by_hand(slurm)
    _refuse_other_gpus(theirs, shape)
    set_now = {flag: value for flag, value in theirs.items() if value not in (None, False)}
    gone = set(theirs).union(*(_replaced(flag, value) for flag, value in set_now.items()))
    flags = {flag: v for flag, v in ours.items() if v is not None and flag not in gone}
    flags |= {flag: _together(flag, ours.get(flag), value) for flag, value in set_now.items()}
    limit = minutes_of(flags.get("time"), minutes)
    return {**flags, "signal": f"USR2@{warning_s(limit)}"}


def warning_s(minutes: int) -> int:
    """Seconds before a time limit at which a worker is asked to stop."""
    return min(WARNING_S, math.ceil(minutes * 60 / 4))


def set_by_hand(slurm: SlurmConfig) -> Flags:
    """launch.slurm.sbatch, by the long names of sbatch. Raises ConfigError."""
    found: Flags = {}
    for key, value in slurm.sbatch.items():
        flag, setting = key.replace("_", "-"), f"launch.slurm.sbatch.{key}"
        if flag in OURS:
            raise ConfigError(setting, value, f"it is set for you ({OURS[flag]})", "leave it out")
        if len(flag) == 1:
            raise ConfigError(setting, value, "a letter", "type the long name of sbatch's flag")
        if flag in found:
            raise ConfigError(setting, value, "it stands there twice", "leave one of them out")
        if not isinstance(value, str | int | float | None):
            raise ConfigError(setting, value, "expected one value", f"type \"{setting}='a,b'\"")
        found[flag] = value
    return found


def command_line(flags: Flags) -> list[str]:
    """Flags as sbatch's arguments."""
    return [f"--{name}" if v is True else f"--{name}={v}" for name, v in flags.items()]


def minutes_of(time: Any, otherwise: int) -> int:
    """Minutes of sbatch's --time: m, m:s, h:m:s, d-h, d-h:m or d-h:m:s; else `otherwise`."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(time))
    if match is None:
        return otherwise
    days, *parts = (int(part or 0) for part in match.groups())
    if match[1] is not None:  # days-hours:minutes:seconds
        return 1440 * days + 60 * parts[0] + parts[1]
    return 60 * parts[0] + parts[1] if match[4] is not None else parts[0]


def _gb(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{int(value)}G" if value == int(value) else f"{math.ceil(1024 * value)}M"


def _gpus(shape: Shape, kind: str | None) -> Flags:
    """The GPUs of a node, as this cluster wants to be asked for them."""
    if not shape.gpus_per_node or kind == "none":
        return {}
    if kind is None:
        return {"gpus-per-node": shape.gpus_per_node}
    if kind.startswith("gres:"):
        return {"gres": f"{kind.removeprefix('gres:')}:{shape.gpus_per_node}"}
    return {"gpus-per-node": f"{kind}:{shape.gpus_per_node}"}


def _is_gpu(gres: Any) -> bool:
    return any(item.split(":")[0] in ("gpu", "gres/gpu") for item in str(gres).split(","))


def _replaced(flag: str, value: Any) -> set[str]:
    """Flags of ours that do not stand beside one of the user's."""
    found = {flag}.union(*(group for group in ALTERNATIVES if flag in group))
    if flag == "gres" and _is_gpu(value):
        found |= ALTERNATIVES[1]
    return found | {"gres"} if flag in ALTERNATIVES[1] else found


def _together(flag: str, ours: Any, theirs: Any) -> Any:
    """The user's value; what a plan cannot do without stays in front of it."""
    if ours is not None and (
        flag == "dependency" or (flag == "gres" and _is_gpu(ours) and not _is_gpu(theirs))
    ):
        return f"{ours},{theirs}"
    return theirs


def _refuse_other_gpus(theirs: Flags, shape: Shape) -> None:
    """A job has one process for each GPU: their number is the plan's."""
    value = theirs.get("gpus-per-node")
    if value in (None, False):
        return
    number = str(value).rpartition(":")[2]
    if number.isdigit() and int(number) != shape.gpus_per_node:
        raise ConfigError(
            "launch.slurm.sbatch.gpus_per_node",
            value,
            f"a job of this plan has one process for each of {shape.gpus_per_node} GPUs",
            f"type launch.slurm.gpus_per_node={number}, and for a type launch.slurm.gpus=<type>",
        )
