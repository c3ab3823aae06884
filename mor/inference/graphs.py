"""Layers over single tokens, in steps of fixed shape that a CUDA graph can hold. Design notes:

- a decoding step launches some 25 small kernels a layer; replayed as a graph they cost one launch;
- a step's tokens and its longest cache are rounded up to a bucket: 1, 1.5, 2, 3, 4, 6, 8, ... times
  a least size. A token that fills up writes to the pool's spare slot and reads slot 0;
- a graph is captured when its bucket is first met. Routing, enter and leave stay outside of it;
- on a CPU the same steps run as they are: that is how they are tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mor.inference.batch import Batch, Reads, Segment, run_layer
from mor.inference.clock import Clock
from mor.inference.tables import Place, Pool, Streams
from mor.model.layers import Adapter, Layer
from mor.model.spans import Tables
from mor.model.transfer import sent

WIDTH = 64  # slots of the smallest bucket


def bucket(n: int, least: int = 1) -> int:
    """The smallest of least x (1, 1.5, 2, 3, 4, 6, 8, ...), in whole numbers, that holds `n`."""
    size = least
    while size < n:
        half = size + size // 2
        if size > 1 and half >= n:
            return half
        size *= 2
    return size


@dataclass
class Step:
    """What `run_layer` reads of a batch, in buffers whose addresses stay."""

    x: Tensor  # (T, D)
    numbers: Tensor  # (T, 4 + W) int64: position, slot written, entries seen from, to, slots read
    of: Streams
    each: list[list[Place]]  # of each layer, for the first of its streams
    tables: Tables
    slots: Tensor | None  # None: no token computes keys and values
    mask: Tensor  # (T, 1, 1, W)

    def places(self, j: int) -> list[Place]:
        return self.each[j]

    def writers(self, places: Sequence[Place]) -> int:
        return 0 if self.slots is None else len(self.x)

    def segments(self, places: Sequence[Place]) -> list[Segment]:
        tokens, read = len(self.x), self.numbers[:, 4:].reshape(-1)
        return [Segment(slice(0, tokens), (tokens, 1), read, self.mask)]


class Graphs:
    """Steps through a model's layers, made when they are first needed."""

    def __init__(
        self, layers: Sequence[Layer], streams: Streams, pools: Sequence[Pool], tables: Tables
    ) -> None:
        self.layers, self.streams, self.pools, self.tables = layers, streams, pools, tables
        self.made: dict[object, tuple[Tensor, Tensor, Callable[[], Tensor]]] = {}
        self.memory: Any = None  # that all graphs share

    def run(self, x: Tensor, batch: Batch, adapters: Sequence[Adapter]) -> Tensor | None:
        """States after the layers of a batch, (T, D), good until the next step; None: the batch is
        not one of single tokens that read the same entries in all layers."""
        reads = batch.reads()
        if reads is None:
            return None
        tokens, width = bucket(len(x)), bucket(reads.width, WIDTH)
        stream = batch.streams[0]
        planes = tuple(
            (self.streams.pool(place.stream), place.plane) for place in self.streams.places[stream]
        )
        layers = self.streams.layers[stream]
        writes = bool(reads.written)
        shape = (layers, planes, tuple(map(id, adapters)), writes, tokens, width)
        if shape not in self.made:
            self.made[shape] = self._make(x, stream, adapters, writes, tokens, width)
        held, numbers, run = self.made[shape]
        held[: len(x)].copy_(x)
        numbers.copy_(sent(self._numbers(reads, stream, tokens, width), x.device))
        return run()[: len(x)]

    def _numbers(self, reads: Reads, stream: int, tokens: int, width: int) -> np.ndarray:
        pool = self.pools[self.streams.pool(self.streams.places[stream][0].stream)]
        made = np.zeros((tokens, 4 + width), np.int64)
        made[:, 1], made[:, 3] = pool.spare, 1
        n = len(reads.at)
        made[:n, 0], made[:n, 2], made[:n, 3] = reads.at, reads.first, reads.ends
        made[: len(reads.written), 1] = reads.written
        for row, slots in zip(made, reads.slots, strict=False):
            row[4 : 4 + len(slots)] = slots
        return made

    def _make(
        self,
        x: Tensor,
        stream: int,
        adapters: Sequence[Adapter],
        writes: bool,
        tokens: int,
        width: int,
    ) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
        held = x.new_zeros(tokens, x.shape[1])
        numbers = torch.zeros(tokens, 4 + width, dtype=torch.int64, device=x.device)
        nothing = Reads([], [], [], [], [])
        numbers.copy_(torch.from_numpy(self._numbers(nothing, stream, tokens, width)))

        def run() -> Tensor:
            return self._layers(held, numbers, stream, adapters, writes)

        return held, numbers, run if x.is_cpu else self._captured(run)

    def _layers(
        self, held: Tensor, numbers: Tensor, stream: int, adapters: Sequence[Adapter], writes: bool
    ) -> Tensor:
        tables, places = self.tables, self.streams.places[stream]
        at, entries = numbers[:, 0], torch.arange(numbers.shape[1] - 4, device=held.device)
        turns = tables.cos.index_select(0, at), tables.sin.index_select(0, at)
        sees = (entries >= numbers[:, 2:3]) & (entries < numbers[:, 3:4])  # (T, W)
        mask = torch.zeros(sees.shape, dtype=tables.dtype, device=held.device)
        mask = mask.masked_fill(~sees, -torch.inf)[:, None, None]
        each = [[place] for place in places]
        slots = numbers[:, 1] if writes else None
        step = Step(held, numbers, self.streams, each, tables, slots, mask)
        x, clock = held, Clock()
        for j, (i, adapter) in enumerate(zip(self.streams.layers[stream], adapters, strict=True)):
            x = run_layer(self.layers[i], adapter, x, turns, step, j, self.pools, clock)
        return x

    def _captured(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """One replay of what `run` does; run twice before, for what kernels set up when first
        called."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            run()
            run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.memory):
            after = run()
        self.memory = graph.pool()

        def replay() -> Tensor:
            graph.replay()
            return after

        return replay
