"""Tokens of several chunks in front of the same layers, and the layers over them. Design notes:

- chunks of about as many tokens attend together, padded to the longest cache among them; so that
  little is padding, caches of similar lengths go together;
- grouped heads are folded into the queries, so that keys and values are never repeated;
- a layer writes first and reads then: a token sees itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mor.inference.clock import Clock
from mor.inference.request import Chunk, Ints, picked
from mor.inference.tables import Place, Pool, Streams, View
from mor.model.layers import Adapter, Layer, rotate
from mor.model.transfer import sent, sent_together

PADDING = 256  # slots that caches may be padded by, together: what another call costs
ALIKE = 0.75  # chunks of so much of the longest one's tokens attend together
SCORES = 2**20  # and make so many scores at once


@dataclass
class Segment:
    """Queries that attend together: n tokens of each of B chunks."""

    queries: slice | Tensor  # (B * n,) which of the batch's tokens
    shape: tuple[int, int]  # B, n
    slots: Tensor  # (B * width,)
    mask: Tensor | None  # (B, 1, n, width)


@dataclass(frozen=True)
class Reads:
    """What single tokens write and read, of the same pool in all layers."""

    at: Sequence[int]  # positions
    written: Sequence[int]  # slots, of the first ones: the others write nothing
    first: Sequence[int]  # the entries that each sees begin here
    ends: Sequence[int]  # and end before this
    slots: Sequence[Ints]  # of the entries up to there

    @property
    def width(self) -> int:
        return max(self.ends)


class Layered(Protocol):
    """What a layer reads of a batch."""

    @property
    def of(self) -> Streams: ...

    @property
    def slots(self) -> Tensor | None:
        """Of the tokens that are written: (T,)."""

    def places(self, j: int) -> list[Place]:
        """What layer `j` does for each stream."""

    def writers(self, places: Sequence[Place]) -> int:
        """Tokens, from the first, whose keys and values a layer computes."""

    def segments(self, places: Sequence[Place]) -> list[Segment]:
        """Queries that attend together, with what they read."""


class Batch:
    """Chunks in front of blocks of the same layers, in ascending order of their streams."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        taking: Sequence[Ints],
        streams: Sequence[int],
        of: Streams,
        device: torch.device,
        documents: bool,
    ) -> None:
        self.chunks, self.streams, self.of, self.device = chunks, streams, of, device
        self.documents = documents
        self.at: list[Ints] = []
        rows: list[Ints] = []
        written: list[int] = []
        for chunk, some, stream in zip(chunks, taking, streams, strict=True):
            at = picked(chunk.at, some)
            self.at.append(at)
            rows.append(picked(chunk.rows, some))
            if not of.writing[stream]:
                continue
            if len(at) == 1:
                written.append(chunk.request.table.write_one(stream, int(at[0])))
            else:
                written += chunk.request.table.write(stream, at).tolist()
        self.counts = [len(at) for at in self.at]
        self.starts = np.cumsum([0, *self.counts])
        self.rows, self.positions = sent_together(rows, self.at, device)  # (T,) each
        self.written = written
        self.groups = self._by_stream()  # the tokens of each stream
        self._segments: dict[tuple[int, ...], list[Segment]] = {}

    @property
    def tokens(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def slots(self) -> Tensor | None:
        return self._tensor(np.array(self.written)) if self.written else None

    def _by_stream(self) -> list[tuple[int, slice]]:
        found: list[tuple[int, slice]] = []
        for i, stream in enumerate(self.streams):
            begin, end = int(self.starts[i]), int(self.starts[i + 1])
            if found and found[-1][0] == stream:
                begin = found.pop()[1].start
            found.append((stream, slice(begin, end)))
        return found

    def places(self, j: int) -> list[Place]:
        """What layer `j` does for each stream."""
        return [self.of.places[stream][j] for stream, _ in self.groups]

    def writers(self, places: Sequence[Place]) -> int:
        """Tokens, from the first, whose keys and values a layer computes."""
        each = zip(self.groups, places, strict=True)
        return sum(part.stop - part.start for (_, part), place in each if place.writes)

    def reads(self) -> Reads | None:
        """What each token reads, where chunks are of one token, and all layers write for the same
        streams and read the same entries of each."""
        layers = [self.places(j) for j in range(len(self.of.layers[self.streams[0]]))]
        alike = {tuple((place.stream, place.writes) for place in places) for places in layers}
        planes = any(place.plane != places[0].plane for places in layers for place in places)
        if len(alike) != 1 or planes or any(count != 1 for count in self.counts):
            return None
        each = zip(self.groups, layers[0], strict=True)
        read = {stream: place.stream for (stream, _), place in each}
        at = [int(own[0]) for own in self.at]
        views = [
            chunk.request.table.views[read[stream]]
            for chunk, stream in zip(self.chunks, self.streams, strict=True)
        ]
        ends = [view.end_of(position) for view, position in zip(views, at, strict=True)]
        first = [0] * len(ends)
        if self.documents:
            first = [int(self._first(i, view, 1)[0]) for i, view in enumerate(views)]
        slots = [view.slots[: min(view.count, end)] for view, end in zip(views, ends, strict=True)]
        return Reads(at, self.written, first, ends, slots)

    def segments(self, places: Sequence[Place]) -> list[Segment]:
        key = tuple(place.stream for place in places)
        if key not in self._segments:
            read = {stream: other for (stream, _), other in zip(self.groups, key, strict=True)}
            views = [
                chunk.request.table.views[read[stream]]
                for chunk, stream in zip(self.chunks, self.streams, strict=True)
            ]
            last = [view.end_of(int(at[-1])) for view, at in zip(views, self.at, strict=True)]
            counts = self.counts
            order = sorted(range(len(last)), key=lambda i: (counts[i], last[i]), reverse=True)
            groups = [order]
            if counts[order[0]] > 1:
                groups = _alike(order, counts, [last[i] for i in order])
            self._segments[key] = [
                segment
                for group in groups
                for segment in self._attending(group, views, [last[i] for i in group])
            ]
        return self._segments[key]

    def _attending(self, group: list[int], views: list[View], widths: list[int]) -> list[Segment]:
        """Chunks of about as many tokens, widest cache first, in as few calls as pay."""
        n, longest = self.counts[group[0]], max(widths)
        slots = np.zeros((len(group), longest), np.int64)
        for row, i, width in zip(slots, group, widths, strict=True):
            held = min(views[i].count, width)
            row[:held] = views[i].slots[:held]
        if n == 1:
            ends, queries = np.array(widths)[:, None], self.starts[group][:, None]
        else:
            ends, queries = self._several(group, views, n)
        entries = np.arange(longest)
        sees = entries < ends[:, :, None]  # (B, n, width)
        if self.documents:
            first = np.stack([self._first(i, views[i], n) for i in group])
            sees &= entries >= first[:, :, None]
        mask = np.where(sees, np.float32(0), np.float32(-np.inf))[:, None]
        segments = []
        for part in _cuts(widths):
            width = max(widths[part])
            whole = width == longest and bool(sees[part].all())
            segments.append(
                Segment(
                    self._tensor(queries[part].reshape(-1)),
                    (part.stop - part.start, n),
                    self._tensor(slots[part, :width].reshape(-1)),
                    None if whole else self._tensor(mask[part, :, :, :width]),
                )
            )
        return segments

    def _several(self, group: list[int], views: list[View], n: int) -> tuple[Ints, Ints]:
        """Ends of what tokens see and their places in the batch, (B, n); the last token of a chunk
        with fewer than `n` stands several times."""
        each = [views[i].up_to(self.at[i]) for i in group]
        ends = [np.pad(one, (0, n - len(one)), mode="edge") for one in each]
        places = [np.minimum(np.arange(n), self.counts[i] - 1) for i in group]
        return np.stack(ends), self.starts[group][:, None] + np.stack(places)

    def _first(self, i: int, view: View, n: int) -> Ints:
        """The first entry of the document of each token, the last one several times: (n,)."""
        starts = np.asarray(self.chunks[i].request.documents, np.int64)[self.at[i]]
        return np.pad(view.up_to(starts - 1), (0, n - len(starts)), mode="edge")

    def _tensor(self, array: np.ndarray) -> Tensor:
        return sent(array, self.device)


def _alike(order: list[int], counts: list[int], widths: list[int]) -> list[list[int]]:
    """Chunks in groups of about as many tokens, of as many scores as SCORES at most; those of one
    token are a group of their own."""
    groups: list[list[int]] = []
    most = widest = 0
    for i, width in zip(order, widths, strict=True):
        n, widest = counts[i], max(widest, width)
        alike = bool(groups) and n > ALIKE * most and (n == 1) == (most == 1)
        if not alike or (n > 1 and (len(groups[-1]) + 1) * most * widest > SCORES):
            groups.append([])
            most, widest = n, width
        groups[-1].append(i)
    return groups


def _cuts(widths: list[int]) -> list[slice]:
    """Widths in parts, of each of which no more than PADDING is padding."""
    parts, start, padding, widest = [], 0, 0, widths[0]
    for i, width in enumerate(widths):
        padding += max(0, width - widest) * (i - start) + max(0, widest - width)
        widest = max(widest, width)
        if padding > PADDING:
            parts.append(slice(start, i))
            start, padding, widest = i, 0, width
    return [*parts, slice(start, len(widths))]


def run_layer(
    layer: Layer,
    adapter: Adapter,
    x: Tensor,  # (T, D)
    turns: tuple[Tensor, Tensor],  # cosines and sines, (T, 1, Dh)
    batch: Layered,
    j: int,
    pools: Sequence[Pool],
    clock: Clock,
) -> Tensor:
    """A layer over a batch, its keys and values in the pool: `Layer.forward` with a past."""
    attention, dtype = layer.attention, turns[0].dtype
    places = batch.places(j)
    pool = pools[batch.of.pool(places[0].stream)]
    keys, values = pool.keys[places[0].plane], pool.values[places[0].plane]
    h = layer.attention_norm(x, dtype)
    q = adapter.q(attention.q, h).view(len(h), attention.n_heads, attention.d_head)
    q = rotate(q, *turns)
    n = batch.writers(places)
    if n:
        assert batch.slots is not None
        shape = (n, attention.n_kv_heads, attention.d_head)
        k = rotate(attention.k(h[:n]).view(shape), turns[0][:n], turns[1][:n])
        keys.index_copy_(0, batch.slots[:n], k)
        values.index_copy_(0, batch.slots[:n], adapter.v(attention.v, h[:n]).view(shape))
    segments = batch.segments(places)
    clock.switch("attention")
    mixed = torch.empty_like(q)
    for segment in segments:
        some = segment.queries
        if isinstance(some, slice):
            mixed[some] = attend(q[some], keys, values, segment)
        else:
            mixed.index_copy_(0, some, attend(q.index_select(0, some), keys, values, segment))
    clock.switch("block")
    mixed = adapter.attend(mixed[:, :, None], q[:, :, None])  # (T, H, 1, Dh)
    x = x + attention.o(mixed.flatten(1))
    return x + layer.mlp(layer.mlp_norm(x, dtype))


def attend(q: Tensor, keys: Tensor, values: Tensor, segment: Segment) -> Tensor:
    """Attention of a segment's queries (T', H, Dh) to the pages: (T', H, Dh)."""
    (batch, n), (_, heads, d_head) = segment.shape, q.shape
    n_kv = keys.shape[1]
    each = heads // n_kv
    q = q.view(batch, n, n_kv, each, d_head).permute(0, 2, 3, 1, 4)
    q = q.reshape(batch, n_kv, each * n, d_head)
    k = keys.index_select(0, segment.slots).view(batch, -1, n_kv, d_head).transpose(1, 2)
    v = values.index_select(0, segment.slots).view(batch, -1, n_kv, d_head).transpose(1, 2)
    mask = segment.mask
    if mask is not None:
        mask = mask.to(q.dtype)
        if n > 1:
            mask = mask.repeat(1, 1, each, 1)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    mixed = mixed.view(batch, n_kv, each, n, d_head).permute(0, 3, 1, 2, 4)
    return mixed.reshape(batch * n, heads, d_head)
