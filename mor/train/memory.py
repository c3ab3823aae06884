"""How many sequences fit into one forward and backward: the micro-batch.

It is where, not what: a step's numbers are those of its whole batch. On a GPU `auto` measures the
peak memory of one and of two sequences, reads off what each further one takes, and chooses the
largest divisor of the rank's batch that fits; the run's folder remembers it. Where memory runs out
all the same, the next smaller divisor is taken; where a single sequence does not fit,
`runtime.recompute=auto` computes each layer's activations twice from then on.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import torch

from ledger.files import write_json
from mor.config import Config, ConfigError, UserError

log = logging.getLogger(__name__)

FILE = "micro_batch.json"  # in the run's folder: the size that fitted, by shape and device
SHARE = 0.9  # of the GPU's memory that may be planned with: the rest is for fragmentation


class OutOfMemory(UserError):
    """A run does not fit on its device; the message says what to change."""


class MicroBatch:
    """The size of a rank's micro-batches: found once, then lowered where memory runs out."""

    def __init__(
        self, config: Config, device: torch.device, n_ranks: int, folder: Path | None = None
    ) -> None:
        """`folder`: where the size is remembered; None: nowhere.

        Raises ConfigError where the batch cannot be divided over the ranks.
        """
        batch, given = config.train.batch_size, config.runtime.micro_batch
        if batch % n_ranks:
            raise ConfigError(
                "train.batch_size",
                batch,
                f"cannot be divided over {n_ranks} processes",
                "start as many as divide it",
            )
        self.per_rank = batch // n_ranks  # sequences
        self._config, self._device = config, device
        self._file = folder / FILE if folder else None
        self._key = _key(config, device, n_ranks)
        self.size: int | None = None  # None: to be measured
        known = self._read()
        self.one = known.get(f"{self._key}, bytes of one sequence")  # None: not measured
        self.recomputes = bool(known.get(f"{self._key}, layers recomputed"))
        if isinstance(given, int):
            self.size = largest_divisor(self.per_rank, given)
        elif given is None or device.type != "cuda":
            self.size = self.per_rank
        remembered = self._remembered()
        if remembered is not None:
            self.size = min(remembered, self.size or remembered)

    def parts(self) -> list[slice]:
        """This rank's rows, a micro-batch at a time, counted from the first of them."""
        size = self.size or self.per_rank
        return [slice(i, i + size) for i in range(0, self.per_rank, size)]

    def measure(self, peak: Callable[[int], float], least: Callable[[int], int]) -> None:
        """Choose the size by the peak memory in bytes of 1 and of 2 sequences.

        `least` is the smallest choice among the ranks. The size stays None where it is to be
        measured again, with layers recomputed. Raises OutOfMemory.
        """
        one = _if_it_fits(peak, 1)
        if one is None:
            self._recompute()
            return
        two = _if_it_fits(peak, min(2, self.per_rank))
        total = torch.cuda.get_device_properties(self._device).total_memory
        fits = 1 if two is None else fitting(self.per_rank, (one, two), SHARE * total)
        self.size, self.one = least(fits), int(one)
        log.info("micro-batches of %d sequences (%d to a rank)", self.size, self.per_rank)
        self.remember()

    def peak(self) -> tuple[float, int] | None:
        """Peak memory of one GPU in GB, and of how many sequences in one forward: of one where that
        was measured, so that models can be compared, else of this process so far. None on a CPU."""
        if self._device.type != "cuda":
            return None
        if self.one:
            return self.one / 1e9, 1
        return torch.cuda.max_memory_reserved(self._device) / 1e9, self.size or self.per_rank

    def lower(self) -> None:
        """Take the next smaller divisor, or of one sequence recompute the layers. Raises
        OutOfMemory where neither is left."""
        size = self.size or self.per_rank
        if size == 1:
            self._recompute()
            return
        self.size = largest_divisor(self.per_rank, size - 1)
        log.warning(
            "out of memory with %d sequences in one forward: going on with %d", size, self.size
        )

    def _recompute(self) -> None:
        if self.recomputes or self._config.runtime.recompute != "auto":
            raise self.does_not_fit() from None
        self.recomputes = True
        log.warning("a single sequence does not fit: computing the activations of layers twice")

    def remember(self) -> None:
        """Note the size for the next attempt at this run."""
        if self._file:
            known = {self._key: self.size} if self.size else {}
            if self.one:
                known[f"{self._key}, bytes of one sequence"] = self.one
            if self.recomputes:
                known[f"{self._key}, layers recomputed"] = 1
            write_json(self._file, {**self._read(), **known})

    def does_not_fit(self) -> OutOfMemory:
        config, runtime = self._config, self._config.runtime
        ways = ["runtime.parallel=fsdp on several GPUs", "a GPU with more memory"]
        if runtime.loss_chunk is None:
            ways.insert(0, "runtime.loss_chunk=2048")
        if runtime.recompute in ("none", "recursion"):
            ways.insert(0, "runtime.recompute=layer")
        return OutOfMemory(
            f"train.seq_len={config.train.seq_len}: a single sequence of {config.model.name}-"
            f"{config.size.name} does not fit into the memory of {self._device}; "
            f"set {', '.join(ways[:-1])} or take {ways[-1]}"
        )

    def _remembered(self) -> int | None:
        size = self._read().get(self._key)
        return size if size and self.per_rank % size == 0 else None

    def _read(self) -> dict[str, int]:
        try:
            return dict(json.loads(self._file.read_text())) if self._file else {}
        except (OSError, ValueError):
            return {}


def _if_it_fits(peak: Callable[[int], float], sequences: int) -> float | None:
    try:
        return peak(sequences)
    except torch.OutOfMemoryError:
        return None


def fitting(per_rank: int, peaks: tuple[float, float], limit: float) -> int:
    """The largest divisor of `per_rank` whose peak stays below `limit` bytes; 1 at least.

    `peaks`: bytes for one and for two sequences; each further one takes as many more.
    """
    each = max(peaks[1] - peaks[0], 1.0)
    most = 1 + math.floor(max(limit - peaks[0], 0.0) / each)
    return largest_divisor(per_rank, most)


def largest_divisor(n: int, at_most: int) -> int:
    return max(d for d in range(1, min(n, max(at_most, 1)) + 1) if n % d == 0)


def _key(config: Config, device: torch.device, n_ranks: int) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    runtime = config.runtime
    ways = (runtime.parallel, runtime.recompute, runtime.loss_chunk, runtime.compile)
    batch = f"{config.train.batch_size} x {config.train.seq_len} {config.train.precision}"
    return f"{name}, {n_ranks} ranks, {batch}, {', '.join(map(str, ways))}"
