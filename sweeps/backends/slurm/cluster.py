"""What Slurm says about itself: partitions and limits. Every call has a time limit."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from ledger.errors import UserError
from sweeps.backends.base import BackendSilent
from sweeps.backends.slurm import client

# Refused are launches of sweep.py and of python -m sweeps, which takes no settings.
HERE = "python sweep.py with the study's settings and launch=local trains here"


@dataclass(frozen=True)
class Partition:
    """A partition, with the most that one of its nodes has."""

    name: str
    default: bool
    limit_min: int | None  # wall time; None: without limit
    nodes: int
    cpus: int  # of its largest node
    mem_mb: int
    gpus: int


@dataclass(frozen=True)
class Cluster:
    """What a submission has to know."""

    partitions: tuple[Partition, ...]
    max_array_size: int
    accounting: bool

    def default(self) -> Partition | None:
        return next((p for p in self.partitions if p.default), None)


def ask() -> Cluster:
    """The cluster of this machine. Raises UserError where there is none or it does not answer."""
    missing = [name for name in ("sbatch", "srun", "sinfo") if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"launch=slurm: {' and '.join(missing)} not found on the PATH of this machine; {HERE}, "
            "or log in to a node that submits"
        )
    settings = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", _ask("scontrol", "show", "config"), re.M))
    storage = settings.get("AccountingStorageType", "")
    return Cluster(
        partitions(_ask("sinfo", "-h", "-o", "%P|%a|%l|%c|%m|%G|%D")),
        int(settings.get("MaxArraySize", 1001)),
        accounting="slurmdbd" in storage or "mysql" in storage,
    )


def partitions(sinfo: str) -> tuple[Partition, ...]:
    """The partitions that are up, from lines of name|up|limit|cpus|MB|gres|nodes.

    Raises UserError for a line of another form.
    """
    found: dict[str, Partition] = {}
    for line in sinfo.splitlines():
        if line.count("|") != 6:
            raise UserError(
                f"launch=slurm: a line of sinfo cannot be read ({line.strip()[:80]!r}); {HERE}"
            )
        name, state, limit, cpus, mem, gres, nodes = line.strip().split("|")
        if state != "up":
            continue
        key = name.rstrip("*")
        before = found.get(key, Partition(key, name.endswith("*"), None, 0, 0, 0, 0))
        found[key] = Partition(
            key,
            before.default,
            None if (limit_s := client.seconds(limit)) is None else limit_s // 60,
            before.nodes + int(nodes),
            max(before.cpus, _number(cpus)),
            max(before.mem_mb, _number(mem)),
            max(before.gpus, gpus_of(gres)),
        )
    return tuple(found.values())


def gpus_of(gres: str) -> int:
    """GPUs in the GRES of a node, of all types together: gpu[:type][:no_consume]:count(where),...

    A type may look like a number (3090) or hold one (1g.10gb): the count is what stands last.
    """
    found = 0
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        kind, *rest = item.split(":")
        if kind.strip() == "gpu":
            found += int(rest[-1]) if rest and rest[-1].isdigit() else 1
    return found


def _number(text: str) -> int:
    return int(text.rstrip("+"))  # "8+": more on other nodes of the same line


def rejection(flags: list[str]) -> str | None:
    """Why sbatch would refuse a job with some flags; None if it would take it."""
    try:
        ended = client.call("sbatch", "--test-only", *flags, "--wrap", "true")
    except BackendSilent:
        return "it does not answer"
    return client.reason(ended.stderr) if ended.returncode else None


def _ask(*command: str) -> str:
    try:
        return client.output(*command)
    except BackendSilent as silent:
        raise UserError(
            f"launch=slurm: Slurm's controller does not answer ({silent}); "
            f"{HERE}, or try again when sinfo answers"
        ) from None
