"""Checkpoints that do not hold up training: the state is copied to host memory, and a thread
writes the copy.

At most one is in flight. What goes wrong in the thread is raised where the loop next asks for the
writer. Completeness is the checkpoint's own affair (`mor.train.checkpoint`): a process that is
killed while it writes leaves the one before.
"""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from mor.train import checkpoint
from mor.train.checkpoint import Progress, Tensors
from mor.train.distributed import Ranks


class Writer:
    """Writes a run's checkpoints, all ranks together, and prunes old ones."""

    def __init__(self, ranks: Ranks, *, background: bool, keep: int) -> None:
        self._ranks, self._background, self._keep = ranks, background, keep
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._mesh: DeviceMesh | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def save(self, path: Path, tensors: Tensors, progress: Progress) -> None:
        """Begin to write a checkpoint, after the one in flight. Raises what that one raised."""
        self.wait()
        if not self._background:
            self._write(path, tensors, progress)
            return
        copies = {name: self._copy(value) for name, value in tensors.items()}
        self._thread = threading.Thread(target=self._in_thread, args=(path, copies, progress))
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is in flight. Raises OSError and whatever else went wrong in the thread."""
        if self._thread:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure:
            raise failure

    def check(self) -> None:
        """Raise what went wrong in a thread that has ended; waits for nothing."""
        if not self.busy:
            self.wait()

    def close(self) -> None:
        """Wait for the one in flight; for exits where errors have been raised already."""
        if self._thread:
            self._thread.join()

    def _in_thread(self, path: Path, tensors: Tensors, progress: Progress) -> None:
        try:
            self._write(path, tensors, progress)
        except BaseException as error:
            self._failure = error

    def _write(self, path: Path, tensors: Tensors, progress: Progress) -> None:
        checkpoint.save(path, tensors, progress, self._ranks)
        if self._ranks.first:
            checkpoint.prune(path.parent, self._keep)

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy in host memory; of a sharded tensor this rank's shard, still known as one."""
        if not isinstance(tensor, DTensor):
            return tensor.detach().to("cpu", copy=True)
        self._mesh = self._mesh or DeviceMesh("cpu", list(range(self._ranks.size)))
        return DTensor.from_local(
            tensor.to_local().detach().to("cpu", copy=True),
            self._mesh,
            tensor.placements,
            run_check=False,
            shape=tensor.shape,
            stride=tensor.stride(),
        )
