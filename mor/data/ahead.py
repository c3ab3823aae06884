"""Batches read ahead: a thread reads the next step's rows while this one trains."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mor.data.batches import WHOLE, Batches

Pair = tuple[Tensor, Tensor]


@dataclass
class Ahead:
    """The rows `part` of each step's batch, as tensors; the same rows as without a thread.

    A step whose rows are not prepared yet is read when it is asked for, as `Batches` may have to
    prepare them. What reading raises is raised by `batch`.
    """

    batches: Batches
    part: slice = field(default_factory=lambda: WHOLE)  # this rank's rows of a batch
    pin: bool = False  # into pinned memory, from which a GPU copies without waiting
    waited: float = 0.0  # seconds that `batch` has waited for rows
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "rows"))
    _now: tuple[int, Pair] | None = None
    _next: tuple[int, Future[Pair]] | None = None

    def batch(self, step: int) -> Pair:
        """Tokens and targets (b, S) of a step. Raises UserError as `Batches.batch` does."""
        if self._now is None or self._now[0] != step:
            began = time.perf_counter()
            self._now = step, self._take(step)
            self.waited += time.perf_counter() - began
            if self.batches.has(step + 1):
                self._next = step + 1, self._thread.submit(self._read, step + 1)
        return self._now[1]

    def _take(self, step: int) -> Pair:
        if self._next is None:
            return self._read(step)
        (at, pending), self._next = self._next, None
        found = pending.result()
        return found if at == step else self._read(step)

    def _read(self, step: int) -> Pair:
        tokens, targets = map(torch.from_numpy, self.batches.batch(step, self.part))
        return (tokens.pin_memory(), targets.pin_memory()) if self.pin else (tokens, targets)
