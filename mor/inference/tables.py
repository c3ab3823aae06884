"""Block manager: which slots of the pools hold the keys and values of which token. Design notes:

- a *stream* is what one pass through a block caches: the first layers, each recursion, the last
  layers. Streams of the same layers share a *pool*; a pool has one tensor of pages per layer;
- a sequence has for each stream its pages and a view: the slot of each entry, and its position;
- recursion-wise: a view holds the stream's own tokens. Shared: recursions read the view of the
  first. Hybrid: a view holds the first one's entries, with the stream's own slots written over;
- a depth that reads an earlier depth's keys and values names that depth's stream and layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mor.config import ModelConfig, SizeConfig
from mor.model.kv.spec import mode_of, sources_of
from mor.model.layout import Layout

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """What a layer attends to."""

    stream: int
    plane: int  # which tensor of the stream's pool
    writes: bool


@dataclass(frozen=True)
class Streams:
    """The streams of a model; the first is the prologue's, the last the epilogue's."""

    layers: tuple[tuple[int, ...], ...]  # of each stream
    places: tuple[tuple[Place, ...], ...]  # of each layer of each stream
    follows: bool  # recursions after the first show the first one's entries as well (hybrid)
    falls_back: bool = False  # a token that left early is seen as its deepest recursion left it

    @property
    def pools(self) -> list[tuple[int, ...]]:
        """The layers of each pool."""
        return list(dict.fromkeys(self.layers))

    def pool(self, stream: int) -> int:
        return self.pools.index(self.layers[stream])

    def planes(self, pool: int) -> set[int]:
        """The layers of a pool that keep keys and values."""
        own = [s for s in range(len(self.layers)) if self.pool(s) == pool]
        return {place.plane for s in own for place in self.places[s] if place.writes}

    @property
    def overwrites(self) -> bool:
        """Whether recursions show entries of one another."""
        return self.follows or self.falls_back

    def writes(self, stream: int) -> bool:
        """Whether any keys and values of its own are kept."""
        return self.writing[stream]

    @cached_property
    def writing(self) -> tuple[bool, ...]:
        return tuple(any(place.writes for place in places) for places in self.places)


def streams_of(
    model: ModelConfig, layout: Layout, n_blocks: int, falls_back: bool = False
) -> Streams:
    """The streams of a model whose tokens pass up to `n_blocks` blocks."""
    blocks = [layout.recursions[min(r, len(layout.recursions) - 1)] for r in range(n_blocks)]
    mode = mode_of(model)
    sources = sources_of(model, sum(len(block) for block in blocks))
    depths = [(1 + r, j) for r, block in enumerate(blocks) for j in range(len(block))]
    places: list[tuple[Place, ...]] = [_own(0, layout.prologue)]
    for r, block in enumerate(blocks):
        if mode.sources:
            here = [depth for depth, (stream, _) in enumerate(depths) if stream == 1 + r]
            places.append(tuple(Place(*depths[sources[d]], sources[d] == d) for d in here))
        elif mode.reads_first and not mode.computes_later and r > 0:
            places.append(tuple(Place(1, j, False) for j in range(len(block))))
        else:
            places.append(_own(1 + r, block))
    places.append(_own(1 + n_blocks, layout.epilogue))
    follows = mode.reads_first and mode.computes_later
    layers = (layout.prologue, *blocks, layout.epilogue)
    return Streams(tuple(layers), tuple(places), follows, falls_back)


def _own(stream: int, layers: tuple[int, ...]) -> tuple[Place, ...]:
    return tuple(Place(stream, j, True) for j in range(len(layers)))


class Pool:
    """Keys and values of some layers, in pages of `page` slots; a free list."""

    def __init__(
        self, planes: set[int], pages: int, page: int, like: SizeConfig, at: Tensor
    ) -> None:
        self.page, self.pages = page, pages
        self.spare = pages * page  # a slot that no page holds and that is never read
        shape = (self.spare + 1, like.n_kv_heads, like.d_head)
        self.keys = {j: at.new_zeros(shape) for j in planes}  # (slots, H_kv, Dh) each
        self.values = {j: at.new_zeros(shape) for j in planes}
        self.free = list(range(pages - 1, -1, -1))
        self.page_bytes = 2 * page * sum(k[:1].nbytes for k in self.keys.values())

    @property
    def used(self) -> int:
        return self.pages - len(self.free)

    @property
    def bytes(self) -> int:
        """Of the pages in use."""
        return self.used * self.page_bytes


class View:
    """The entries of a stream of one sequence."""

    def __init__(self) -> None:
        self.pages: list[int] = []
        self.own = 0  # tokens written to the pages
        self.count = 0  # entries seen
        self.newest = -1  # position of the last one
        self.slots: Ints = np.zeros(64, np.int64)
        self.at: Ints = np.zeros(64, np.int64)  # their positions, ascending

    def extend(self, slots: Ints, at: Ints) -> None:
        end = self.count + len(slots)
        while end > len(self.slots):
            self.slots = np.concatenate((self.slots, np.zeros_like(self.slots)))
            self.at = np.concatenate((self.at, np.zeros_like(self.at)))
        self.slots[self.count : end], self.at[self.count : end] = slots, at
        self.count, self.newest = end, int(at[-1])

    def append(self, slot: int, at: int) -> None:
        if self.count == len(self.slots):
            self.extend(np.array([slot]), np.array([at]))
            return
        self.slots[self.count], self.at[self.count] = slot, at
        self.count, self.newest = self.count + 1, at

    def overwrite(self, slots: Ints, at: Ints) -> None:
        self.slots[np.searchsorted(self.at[: self.count], at)] = slots

    def up_to(self, at: Ints) -> Ints:
        """Entries at or before each position."""
        return np.searchsorted(self.at[: self.count], at, side="right")

    def end_of(self, at: int) -> int:
        """The same for one position."""
        if at >= self.newest:
            return self.count
        return int(np.searchsorted(self.at[: self.count], at, side="right"))


class Table:
    """The pages and views of one sequence."""

    def __init__(self, streams: Streams, pools: list[Pool]) -> None:
        self.streams = streams
        self.pool_of = [pools[streams.pool(s)] for s in range(len(streams.layers))]
        self.views = [View() for _ in streams.layers]

    def reserve(self, stream: int, n: int) -> bool:
        """Have pages for `n` more tokens of a stream; False: the pool is full."""
        view, pool = self.views[stream], self.pool_of[stream]
        missing = -(-(view.own + n) // pool.page) - len(view.pages)
        if missing <= 0:
            return True
        if missing > len(pool.free):
            return False
        view.pages += [pool.free.pop() for _ in range(missing)]
        return True

    def write(self, stream: int, at: Ints) -> Ints:
        """Slots for tokens at these positions; pages must be reserved."""  # (n,)
        view, page = self.views[stream], self.pool_of[stream].page
        places = np.arange(view.own, view.own + len(at))
        slots = np.asarray(view.pages, np.int64)[places // page] * page + places % page
        view.own += len(at)
        last = len(self.views) - 1
        if not self.streams.overwrites or stream in (0, last):
            view.extend(slots, at)
            return slots
        if stream == 1:
            for other in self.views[1:last]:
                other.extend(slots, at)
        elif self.streams.follows:
            view.overwrite(slots, at)
        else:
            for other in self.views[stream:last]:
                other.overwrite(slots, at)
        return slots

    def write_one(self, stream: int, at: int) -> int:
        """The same for one token."""
        last = len(self.views) - 1
        if self.streams.overwrites and stream not in (0, last):
            return int(self.write(stream, np.array([at]))[0])
        view, page = self.views[stream], self.pool_of[stream].page
        slot = view.pages[view.own // page] * page + view.own % page
        view.own += 1
        view.append(slot, at)
        return slot

    def release(self) -> None:
        """Give all pages back."""
        for stream, view in enumerate(self.views):
            self.pool_of[stream].free += view.pages
        self.views = [View() for _ in self.views]


def pages_of(streams: Streams, tokens: int, page: int) -> list[int]:
    """Pages of each pool that a sequence of so many tokens takes, if each takes every block."""
    needed = [0] * len(streams.pools)
    for stream in range(len(streams.layers)):
        if streams.writes(stream):
            needed[streams.pool(stream)] += -(-tokens // page)
    return needed


def page_bytes(streams: Streams, page: int, size: SizeConfig, dtype: torch.dtype) -> list[int]:
    """Bytes of a page of each pool."""
    one = 2 * page * size.n_kv_heads * size.d_head * dtype.itemsize
    return [one * len(streams.planes(pool)) for pool in range(len(streams.pools))]
