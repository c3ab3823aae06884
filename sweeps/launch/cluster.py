"""What Slurm says about itself: partitions and limits. Every call has a time limit."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from ledger.errors import UserError

TIMEOUT_S = 30.0
HERE = "type launch=local to train here"


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
    settings = dict(
        re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", _client("scontrol", "show", "config"), re.M)
    )
    storage = settings.get("AccountingStorageType", "")
    return Cluster(
        partitions(_client("sinfo", "-h", "-o", "%P|%a|%l|%c|%m|%G|%D")),
        int(settings.get("MaxArraySize", 1001)),
        accounting="slurmdbd" in storage or "mysql" in storage,
    )


def partitions(sinfo: str) -> tuple[Partition, ...]:
    """The partitions that are up, from lines of name|up|limit|cpus|MB|gres|nodes."""
    found: dict[str, Partition] = {}
    for line in sinfo.splitlines():
        name, state, limit, cpus, mem, gres, nodes = line.strip().split("|")
        if state != "up":
            continue
        key = name.rstrip("*")
        gpus = sum(int(count) for count in re.findall(r"gpu(?::[^:,()]+)??:(\d+)", gres))
        before = found.get(key, Partition(key, name.endswith("*"), None, 0, 0, 0, 0))
        found[key] = Partition(
            key,
            before.default,
            minutes(limit),
            before.nodes + int(nodes),
            max(before.cpus, _number(cpus)),
            max(before.mem_mb, _number(mem)),
            max(before.gpus, gpus),
        )
    return tuple(found.values())


def minutes(limit: str) -> int | None:
    """Minutes of Slurm's days-hours:minutes:seconds; None where there is no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return None
    days, hours, mins, _ = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + mins


def _number(text: str) -> int:
    return int(text.rstrip("+"))  # "8+": more on other nodes of the same line


def rejection(flags: list[str]) -> str | None:
    """Why sbatch would refuse a job with some flags; None if it would take it."""
    command = ["sbatch", "--test-only", *flags, "--wrap", "true"]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "it does not answer"
    return _reason(ended.stderr) if ended.returncode else None


def _client(*command: str) -> str:
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(_silent(command[0], f"no answer in {TIMEOUT_S:.0f} s")) from None
    except OSError as error:
        raise UserError(_silent(command[0], str(error.strerror))) from None
    if ended.returncode:
        raise UserError(_silent(command[0], _reason(ended.stderr)))
    return ended.stdout


def _silent(command: str, reason: str) -> str:
    return (
        f"launch=slurm: Slurm's controller does not answer ({command}: {reason}); "
        f"{HERE}, or try again when sinfo answers"
    )


def _reason(stderr: str) -> str:
    """The last words of a client command, without its name and level."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    words = re.sub(r"^(\w+: )?((error|fatal): )?", "", lines[-1]) if lines else "no reason given"
    return words.removeprefix("allocation failure: ").removeprefix("Batch job submission failed: ")
