"""Reading shards: their tokens as one long row of numbers, each shard checked when it is opened."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mor.data.manifest import Shard, shard_file

Tokens = npt.NDArray[np.unsignedinteger]

OPEN = 256  # shards kept mapped


class DamagedShard(Exception):
    """A shard's file is not the one that the manifest describes."""


class ShardFiles:
    """The files of some shards, opened when they are read.

    `repair` is called with a shard that is damaged, and makes it again or raises.
    """

    def __init__(
        self, folder: Path, shards: Sequence[Shard], dtype: np.dtype[np.unsignedinteger],
        repair: Callable[[Shard], None],
    ) -> None:  # fmt: skip
        self.folder, self.shards, self.dtype = folder, list(shards), dtype
        self._repair = repair
        self._open: OrderedDict[int, Tokens] = OrderedDict()

    def tokens(self, index: int) -> Tokens:
        """All tokens of a shard, memory-mapped: training ones, then held-out ones."""
        if index in self._open:
            self._open.move_to_end(index)
            return self._open[index]
        shard = self.shards[index]
        path = shard_file(self.folder, shard.shard)
        try:
            check_shard(path, shard)
        except DamagedShard:
            self._repair(shard)
        if shard.tokens:
            tokens: Tokens = np.memmap(path, self.dtype, mode="r")
        else:
            tokens = np.empty(0, self.dtype)
        self._open[index] = tokens
        if len(self._open) > OPEN:
            self._open.popitem(last=False)
        return tokens


def check_shard(path: Path, shard: Shard) -> None:
    """Raises DamagedShard unless a file is what the manifest says, by its digest."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedShard(f"{path}: {error.strerror}") from error
    if digest != shard.sha256:
        raise DamagedShard(f"{path}: its digest is not the one in the manifest")


@dataclass
class ShardTokens:
    """The training tokens of all shards end to end, or the held-out ones. Read by slices."""

    files: ShardFiles
    held_out: bool
    limit: int | None = None  # tokens at most

    def __post_init__(self) -> None:
        counts = [self._part(shard)[1] for shard in self.files.shards]
        self._ends = np.cumsum([0, *counts])

    def _part(self, shard: Shard) -> tuple[int, int]:
        """Where its part of a shard begins, and how long it is."""
        if self.held_out:
            return shard.train_tokens, shard.val_tokens
        return 0, shard.train_tokens

    def __len__(self) -> int:
        there = int(self._ends[-1])
        return there if self.limit is None else min(there, self.limit)

    def __getitem__(self, wanted: slice) -> Tokens:
        """Tokens (n,) from `start` to `stop`; a copy where they are of several shards."""
        start, stop, _ = wanted.indices(len(self))
        index = int(np.searchsorted(self._ends, start, side="right")) - 1
        parts = []
        while start < stop:
            end = min(stop, int(self._ends[index + 1]))
            if end > start:
                first = self._part(self.files.shards[index])[0] - int(self._ends[index])
                parts.append(self.files.tokens(index)[first + start : first + end])
                start = end
            index += 1
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty(0, self.files.dtype), *parts])
