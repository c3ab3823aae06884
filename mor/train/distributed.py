"""Several processes that train one run: their ranks, and what they exchange.

The environment is torchrun's: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT, which
submitit's TorchDistributedEnvironment exports, too. Without it a process is alone, and every
exchange below gives back what it was given. Exchanges go over gloo, on the CPU: they never wait
for a GPU's queue. Sums are in float64, where whole numbers up to 2^53 add exactly.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class OtherRankFailed(Exception):
    """Another process of this run met an error; its own log says which."""


def tells_of_a_lost_rank(error: BaseException) -> bool:
    """Whether an error is a broken or silent connection to another process of the run."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo/transport" in str(error)
    )


@dataclass(frozen=True)
class Channel:
    """One line of exchange between all ranks. Used by one thread at a time."""

    rank: int = 0
    size: int = 1
    group: Any = None  # a gloo process group; None: a process alone

    def total(self, values: Sequence[float]) -> list[float]:
        """The sum over ranks of each value."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set on any rank."""
        return tuple(value > 0 for value in self._reduce(flags, dist.ReduceOp.MAX))

    def least(self, value: int) -> int:
        return int(self._reduce([value], dist.ReduceOp.MIN)[0])

    def _reduce(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor([float(value) for value in values], dtype=torch.float64)
        dist.all_reduce(tensor, operation, group=self.group)
        return [float(value) for value in tensor.tolist()]

    def shared(self, value: T) -> T:
        """Rank 0's value."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group, device=torch.device("cpu"))
        return box[0]


@dataclass(frozen=True)
class Ranks(Channel):
    """The processes of a run, and this one's place among them."""

    local: int = 0  # among those of its machine: which GPU is its own
    storage: Channel = Channel()  # for the thread that writes checkpoints
    token: str = ""  # the same on all ranks, of these processes alone: names temporary folders

    @property
    def first(self) -> bool:
        """Whether this process writes the ledger."""
        return self.rank == 0


_joined: list[Ranks] = []


def world_size() -> int:
    """How many processes the environment says there are."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def join() -> Ranks:
    """This process's place; the first call waits until all ranks have come."""
    if not _joined:
        _joined.append(_alone() if world_size() == 1 else _meet())
    return _joined[0]


def leave() -> None:
    """Part from the other ranks, at the end of the process."""
    if _joined and _joined.pop().size > 1:
        dist.destroy_process_group()


def _alone() -> Ranks:
    return Ranks(token=str(os.getpid()))


def _meet() -> Ranks:
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", 0))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_device(local))
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    size = dist.get_world_size()
    control, storage = dist.new_group(backend="gloo"), dist.new_group(backend="gloo")
    token = Channel(rank, size, control).shared(str(os.getpid()))
    return Ranks(rank, size, control, local, Channel(rank, size, storage), token)


def local_device(local: int) -> int:
    """The GPU of a rank; where Slurm shows each task only its own, that is number 0."""
    return local % torch.cuda.device_count()
