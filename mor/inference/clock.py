"""Where the engine's time goes, and how full its batches are."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds under each name; one name at a time."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    name: str | None = None
    since: float = 0.0

    def switch(self, name: str | None) -> None:
        now = time.perf_counter()
        if self.name is not None:
            self.seconds[self.name] += now - self.since
        self.name, self.since = name, now


@dataclass
class Counts:
    """What has been run."""

    ticks: int = 0
    block_runs: int = 0  # batches through a block
    mixed_runs: int = 0  # of them, with tokens of different recursions
    block_tokens: int = 0  # tokens in them
    block_chunks: int = 0  # requests in them
    tokens: int = 0  # that have passed the model
    depth: int = 0  # blocks that these took, together
    new_tokens: int = 0
    peak_kv_bytes: int = 0


@dataclass(frozen=True)
class Statistics:
    """A summary of an engine's work so far."""

    ticks: int
    new_tokens: int
    occupancy: float  # requests in a block's batch over max_batch, mean over batches
    mean_depth: float  # blocks per token
    mixed_depth_share: float  # of the blocks' batches
    kv_bytes: int  # of the pages in use
    peak_kv_bytes: int
    pool_bytes: int
    preemptions: int
    seconds: dict[str, float]  # attention, block, head, scheduling
