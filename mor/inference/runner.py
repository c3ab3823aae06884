"""The model over chunks: in through the first layers, block by block, out through the last ones.

A tick walks over the blocks in order of depth and runs each once, over all chunks in front of it.
Recursions of the same layers are one block there: tokens at different depths share its batch, and
a token that leaves makes room for the next one at once. Blocks of other layers are passed in the
same tick, so a vanilla model has a token for each tick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mor.inference.batch import Batch, run_layer
from mor.inference.clock import Clock, Counts
from mor.inference.graphs import Graphs
from mor.inference.packed import Norm, Packed, packed
from mor.inference.request import Chunk, Ints, Settings, picked
from mor.inference.sizing import dtype_of
from mor.inference.tables import Pool, Streams
from mor.model.layers import PLAIN, Adapter, Layer, rotary_tables
from mor.model.routers.course import Course, Tokens
from mor.model.transfer import sent, sent_together
from mor.model.transformer import Transformer

Reserve = Callable[[int, Chunk, int], None]


class States:
    """The states of the tokens in flight, in rows that are used again."""

    def __init__(self, like: Tensor) -> None:
        self.x = like.new_zeros(0, like.shape[1])
        self.first = self.x.clone()
        self.notes = like.new_zeros(0, 2, dtype=torch.float32)
        self.free: list[int] = []

    def take(self, n: int) -> Ints:
        if len(self.free) < n:
            size = len(self.x)
            more = max(n, size, 64)
            self.x, self.first = (F.pad(t, (0, 0, 0, more)) for t in (self.x, self.first))
            self.notes = F.pad(self.notes, (0, 0, 0, more))
            self.free += range(size, size + more)
        rows = self.free[-n:]
        del self.free[-n:]
        return np.asarray(rows, np.int64)

    def give_back(self, chunk: Chunk) -> None:
        self.free += chunk.rows.tolist()


class Runner:
    def __init__(
        self,
        model: Transformer,
        course: Course,
        streams: Streams,
        pools: Sequence[Pool],
        settings: Settings,
        reserve: Reserve,
    ) -> None:
        self.model, self.course, self.streams, self.pools = model, course, streams, pools
        self.settings, self.reserve = settings, reserve
        weight = model.embed.weight
        self.device, self.documents = weight.device, model.separator is not None
        self.states, self.clock, self.counts = States(weight), Clock(), Counts()
        dtype = dtype_of(settings, weight)
        self.precision = torch.autocast(
            self.device.type, torch.bfloat16, enabled=settings.bf16, cache_enabled=False
        )
        self.tables = rotary_tables(
            settings.context, model.size.d_head, model.model.rope_theta, self.device, dtype
        )
        self.layers = [packed(cast(Layer, layer), dtype) for layer in model.layers]
        self.head = Packed(weight, dtype)  # tied to the embedding
        self.norm = Norm(model.norm)
        graphs = self.device.type == "cuda" if settings.graphs is None else settings.graphs
        self.graphs = Graphs(self.layers, streams, pools, self.tables) if graphs else None
        self.flying: list[Chunk] = []
        tied = settings.depthwise and not any(True for _ in model.relaxation.parameters())
        self.keys = [
            streams.layers[1 + r] if tied else (r, *streams.layers[1 + r])
            for r in range(course.n_blocks)
        ]

    def tick(self, entering: list[Chunk]) -> list[tuple[Chunk, Tensor]]:
        """One walk; the chunks that come out, with their states behind the last norm (n, D)."""
        self.counts.ticks += 1
        self._drop()
        self._enter(entering)
        for key in dict.fromkeys(self.keys):
            n = self.course.n_blocks
            batch = [c for c in self.flying if len(c.taking) and c.r < n and self.keys[c.r] == key]
            self._block(batch)
        self._drop()
        return self._leave([c for c in self.flying if not len(c.taking)])

    def _drop(self) -> None:
        for chunk in self.flying:
            if chunk.dropped:
                self.states.give_back(chunk)
        self.flying = [chunk for chunk in self.flying if not chunk.dropped]

    def _enter(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            chunk.rows = self.states.take(chunk.length)
            self.flying.append(chunk)
        everyone = [chunk.alive for chunk in chunks]
        batch = self._batch(chunks, everyone, [0] * len(chunks))
        if batch is None:
            return
        tokens = [chunk.request.tokens[chunk.at[0] : chunk.at[-1] + 1] for chunk in batch.chunks]
        given = sent(np.array([t for some in tokens for t in some]), self.device)
        x = self._layers(self.model.embed(given), batch, [PLAIN] * len(self.streams.layers[0]))
        self.states.x.index_copy_(0, batch.rows, x)
        if self.course.reads_first:
            self.states.first.index_copy_(0, batch.rows, x)
        self._settle(list(batch.chunks))

    def _batch(self, chunks: list[Chunk], taking: list[Ints], streams: list[int]) -> Batch | None:
        """The chunks that get their pages; None: none did."""
        self.clock.switch("scheduling")
        for chunk, some, stream in zip(chunks, taking, streams, strict=True):
            if self.streams.writes(stream) and not chunk.dropped:
                self.reserve(stream, chunk, len(some))
        kept = [i for i, chunk in enumerate(chunks) if not chunk.dropped]
        if not kept:
            return None
        made = Batch(
            [chunks[i] for i in kept],
            [taking[i] for i in kept],
            [streams[i] for i in kept],
            self.streams,
            self.device,
            self.documents,
        )
        self.clock.switch("block")
        return made

    def _layers(self, x: Tensor, batch: Batch, adapters: Sequence[Adapter]) -> Tensor:
        if self.graphs is not None:
            after = self.graphs.run(x, batch, adapters)
            if after is not None:
                return after
        turns = (
            self.tables.cos.index_select(0, batch.positions),
            self.tables.sin.index_select(0, batch.positions),
        )
        depths = self.streams.layers[batch.streams[0]]
        for j, (i, adapter) in enumerate(zip(depths, adapters, strict=True)):
            x = run_layer(self.layers[i], adapter, x, turns, batch, j, self.pools, self.clock)
        return x

    def _block(self, chunks: list[Chunk]) -> None:
        """One block over the tokens that take it, whatever recursion each is in."""
        chunks = sorted(chunks, key=lambda chunk: chunk.r)
        if not chunks:
            return
        batch = self._batch(
            chunks, [chunk.taking for chunk in chunks], [1 + chunk.r for chunk in chunks]
        )
        if batch is None:
            return
        course, relaxation = self.course, self.model.relaxation
        everyone = self._tokens(batch.rows, batch.positions)
        groups = [(stream - 1, part) for stream, part in batch.groups]
        r = groups[0][0]
        x = course.enter_each(groups, everyone)
        f = self._layers(
            relaxation.enter(r, x), batch, relaxation.of_layers(r, len(self.streams.layers[1 + r]))
        )
        after = course.leave_each(groups, everyone, relaxation.leave(r, f))
        self.states.x.index_copy_(0, batch.rows, after.to(self.states.x.dtype))
        self.states.notes.index_copy_(0, batch.rows, everyone.notes)
        self._count(batch, len(groups))
        for chunk in batch.chunks:
            if len(chunk.taking) == chunk.length:
                chunk.depth += 1
            else:
                chunk.depth[chunk.taking] += 1
            chunk.r += 1
        self._settle(list(batch.chunks))

    def _count(self, batch: Batch, recursions: int) -> None:
        counts = self.counts
        counts.block_runs += 1
        counts.mixed_runs += recursions > 1
        counts.block_tokens += batch.tokens
        counts.block_chunks += len(batch.chunks)
        used = sum(pool.bytes for pool in self.pools)
        counts.peak_kv_bytes = max(counts.peak_kv_bytes, used)

    def _tokens(self, rows: Tensor, at: Tensor) -> Tokens:
        states = self.states
        x = states.x.index_select(0, rows)
        first = states.first.index_select(0, rows) if self.course.reads_first else x
        return Tokens(x, first, states.notes.index_select(0, rows), at)

    def _settle(self, chunks: list[Chunk]) -> None:
        """Decide who takes the block that each chunk stands in front of."""
        while chunks:
            for chunk in chunks:
                if chunk.r == self.course.n_blocks:
                    chunk.alive = chunk.taking = chunk.alive[:0]
            waiting = [chunk for chunk in chunks if chunk.r < self.course.n_blocks]
            chunks = self._decide(sorted(waiting, key=lambda chunk: chunk.r))

    def _decide(self, chunks: list[Chunk]) -> list[Chunk]:
        """Those of the chunks, ascending in depth, that stand in front of another block now: none
        of their tokens took this one."""
        if not chunks:
            return []
        rows, at = sent_together(
            [picked(chunk.rows, chunk.alive) for chunk in chunks],
            [picked(chunk.at, chunk.alive) for chunk in chunks],
            self.device,
        )
        tokens, groups, start = self._tokens(rows, at), list[tuple[int, slice]](), 0
        for r, group in groupby(chunks, key=lambda chunk: chunk.r):
            end = start + sum(len(chunk.alive) for chunk in group)
            groups.append((r, slice(start, end)))
            start = end
        chosen = self.course.decide_each(groups, tokens)
        self.states.notes.index_copy_(0, rows, tokens.notes)
        takes = None if chosen is None else chosen.cpu().numpy()  # the host waits here, once
        start, again = 0, list[Chunk]()
        for chunk in chunks:
            end = start + len(chunk.alive)
            chunk.taking = chunk.alive if takes is None else chunk.alive[takes[start:end]]
            start = end
            if not self.course.passes_over:
                chunk.alive = chunk.taking
            elif not len(chunk.taking):
                chunk.r += 1
                again.append(chunk)
        return again

    def _leave(self, chunks: list[Chunk]) -> list[tuple[Chunk, Tensor]]:
        """The last layers and the last norm, over all tokens of chunks that have none left."""
        last = len(self.streams.layers) - 1
        everyone = [np.arange(chunk.length) for chunk in chunks]
        batch = self._batch(chunks, everyone, [last] * len(chunks))
        if batch is None:
            return []
        x = self._layers(
            self.states.x.index_select(0, batch.rows),
            batch,
            [PLAIN] * len(self.streams.layers[last]),
        )
        x = self.norm(x, self.tables.dtype)
        for chunk in batch.chunks:
            self.states.give_back(chunk)
            self.counts.tokens += chunk.length
            self.counts.depth += sum(chunk.depth.tolist())
        gone = set(map(id, batch.chunks))
        self.flying = [chunk for chunk in self.flying if id(chunk) not in gone]
        return list(zip(batch.chunks, x.split(batch.counts), strict=True))
