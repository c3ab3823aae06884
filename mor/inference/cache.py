"""Keys and values of the tokens decoded so far, one more token of each sequence at a time.

The strategies of `mor.model.kv`, with a past. Each gives a layer the grid of what it cached before,
with a free slot in which the layer writes the new token's (`Reads.cells`), so the layers know
nothing of caches. Design notes:

- recursion-wise: a recursion's grid grows only where it takes the token, so sequences have caches
  of their own lengths, and memory is what the routing makes it: (Nr + 1) / 2 Nr of a full one;
- shared: later recursions read recursion 1's grid and keep none;
- hybrid: a recursion's grid is recursion 1's with its own written over it. It catches up with
  what recursion 1 took while it was not entered when it is entered next;
- a grid is copied when a token is written into it: a reference to check against, not an engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mor.config import ModelConfig, SizeConfig
from mor.model.components import n_blocks
from mor.model.kv.spec import mode_of, sources_of
from mor.model.kv.strategies import ForAllBlocks, Plan, Strategy
from mor.model.layers import KV, Reads
from mor.model.layout import Layout
from mor.model.lookup import load_module
from mor.model.spans import Span

GROWTH = 64  # slots that a full grid grows by


class Cache:
    """What a forward pass over one more token of each sequence needs of the ones before."""

    def __init__(self, model: ModelConfig, size: SizeConfig, layout: Layout, batch: int) -> None:
        self.start = 0  # tokens of each sequence so far
        self.document: Tensor | None = None  # (B,), the document of the new token
        self._next_document: Tensor | None = None
        self.prologue: Strategy = Own(self, batch, size)
        self.epilogue: Strategy = Own(self, batch, size)
        self.recursions = _recursions(self, model, size, layout, batch)

    def enter(self, tokens: Tensor, separator: int | None) -> None:
        """One more token of each sequence; a separator closes its own document."""  # (B,)
        self.recursions.begin()
        if separator is not None:
            before = self._next_document
            self.document = torch.zeros_like(tokens) if before is None else before
            self._next_document = self.document + (tokens == separator)

    def leave(self) -> None:
        self.start += 1


class Slots:
    """Which slots of a grid hold tokens: the first counts[b] of sequence b, in their documents."""

    def __init__(self, cache: Cache, batch: int) -> None:
        self.cache, self.width = cache, 0
        self.counts = torch.zeros(batch, dtype=torch.long)  # (B,)
        self.documents = torch.zeros(batch, 0, dtype=torch.long)  # (B, width)

    def add(self, span: Span) -> None:
        """Take up the span's tokens, one of each of its sequences."""
        self.counts = self.counts.to(span.tables.cos.device)
        if int(self.counts.max()) == self.width:
            self.width += GROWTH
            self.documents = F.pad(self.documents, (0, GROWTH))
        self.documents = self.documents.to(self.counts.device)
        rows = self.rows(span)
        if self.cache.document is not None:
            self.documents[rows, self.counts[rows]] = self.cache.document[rows]
        self.counts[rows] += 1

    def rows(self, span: Span) -> Tensor:
        """The sequences that a span holds a token of, in the order of its tokens."""
        every = torch.arange(len(self.counts), device=self.counts.device)
        return every if span.where is None else span.where

    def last(self, span: Span) -> Tensor:
        """The cell of the newest token of each of the span's sequences, in the flat grid."""
        rows = self.rows(span)
        return rows * self.width + self.counts[rows] - 1

    def mask(self, dtype: torch.dtype) -> Tensor:
        """0 at the slots that hold tokens of the new token's document; -inf elsewhere."""
        slots = torch.arange(self.width, device=self.counts.device)
        sees = slots < self.counts[:, None].clamp_min(1)  # no row is void
        if self.cache.document is not None:
            same = self.documents == self.cache.document[:, None]
            sees &= same | (slots == 0)[None] & ~(sees & same).any(1, keepdim=True)
        mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
        return mask.masked_fill_(~sees, -torch.inf)[:, None, None]  # (B, 1, 1, width)


class Own(ForAllBlocks):
    """Each layer attends to what it computed itself for the tokens that came this way."""

    keeps = True

    def __init__(self, cache: Cache, batch: int, size: SizeConfig) -> None:
        self.slots = Slots(cache, batch)
        self.empty = (batch, 0, size.n_kv_heads, size.d_head)
        self.grids: list[KV] = []

    def begin(self) -> None: ...

    def reads(self, span: Span, n_layers: int) -> Plan:
        self.slots.add(span)
        if not self.grids:
            nothing = torch.empty(
                self.empty, dtype=span.tables.dtype, device=span.tables.cos.device
            )
            self.grids = [(nothing, nothing)] * n_layers
        mask, cells = self.slots.mask(span.tables.dtype), self.slots.last(span)
        return [Reads(widened(grid, self.slots.width), mask, cells) for grid in self.grids]

    def keep(self, span: Span, memory: list[KV]) -> None:
        self.grids = memory


class Recursions:
    """One strategy for each block; a token enters some of them."""

    def __init__(self, each: Sequence[Strategy]) -> None:
        self.each = each

    def begin(self) -> None: ...

    def at(self, r: int) -> Strategy:
        return self.each[r]


class Following(ForAllBlocks):
    """kv=shared, recursions 2 and on: what recursion 1 cached."""

    keeps = False

    def __init__(self, first: Own) -> None:
        self.first = first

    def reads(self, span: Span, n_layers: int) -> Plan:
        mask = self.first.slots.mask(span.tables.dtype)
        return [Reads(kv, mask) for kv in self.first.grids]

    def keep(self, span: Span, memory: list[KV]) -> None: ...


class Overwriting(ForAllBlocks):
    """kv=hybrid, recursions 2 and on: recursion 1's cache, own keys and values written over it."""

    keeps = True

    def __init__(self, first: Own) -> None:
        self.first = first
        self.grids: list[KV] = []
        self.filled = torch.zeros_like(first.slots.counts)  # (B,): slots taken over so far

    def reads(self, span: Span, n_layers: int) -> Plan:
        slots = self.first.slots
        old = torch.arange(slots.width, device=slots.counts.device)
        old = (old < self.filled.to(old.device)[:, None])[:, :, None, None]  # (B, width, 1, 1)
        if self.grids:
            both = [
                (widened(own, slots.width), first)
                for own, first in zip(self.grids, self.first.grids, strict=True)
            ]
            self.grids = [
                (torch.where(old, own[0], first[0]), torch.where(old, own[1], first[1]))
                for own, first in both
            ]
        else:
            self.grids = self.first.grids
        self.filled = slots.counts.clone()
        mask, cells = slots.mask(span.tables.dtype), slots.last(span)
        return [Reads(kv, mask, cells) for kv in self.grids]

    def keep(self, span: Span, memory: list[KV]) -> None:
        self.grids = memory


class ReusedPast(ForAllBlocks):
    """kv=cycle, sequence, middle_cycle: a depth reads an earlier depth's cache."""

    keeps = True

    def __init__(self, cache: Cache, batch: int, size: SizeConfig, sources: Sequence[int]) -> None:
        self.sources = sources
        self.own = Own(cache, batch, size)
        self.before: list[KV] = []  # of every depth, as the last step left them
        self.memory: list[KV] = []  # of the depths that this step has passed

    def begin(self) -> None:
        self.before, self.memory = self.memory, []

    def reads(self, span: Span, n_layers: int) -> Plan:
        slots, first = self.own.slots, len(self.memory)
        if first == 0:
            slots.add(span)
        mask, cells = slots.mask(span.tables.dtype), slots.last(span)
        nothing = torch.empty(self.own.empty, dtype=mask.dtype, device=mask.device)
        plan: Plan = []
        for depth in range(first, first + n_layers):
            source = self.sources[depth]
            if source == depth:
                grid = self.before[depth] if self.before else (nothing, nothing)
                plan.append(Reads(widened(grid, slots.width), mask, cells))
            elif source >= first:
                plan.append(source - first)
            else:
                plan.append(Reads(self.memory[source], mask))
        return plan

    def keep(self, span: Span, memory: list[KV]) -> None:
        self.memory += memory


def widened(grid: KV, width: int) -> KV:
    """Keys and values with room for `width` slots."""  # (B, n, H, Dh)
    missing = width - grid[0].shape[1]
    if not missing:
        return grid
    return F.pad(grid[0], (0, 0, 0, 0, 0, missing)), F.pad(grid[1], (0, 0, 0, 0, 0, missing))


def _recursions(
    cache: Cache, model: ModelConfig, size: SizeConfig, layout: Layout, batch: int
) -> Recursions | ReusedPast:
    build = load_module(mode_of(model).cache)
    made: Recursions | ReusedPast = build(cache, model, size, layout, batch)
    return made


def own_pasts(
    cache: Cache, model: ModelConfig, size: SizeConfig, layout: Layout, batch: int
) -> Recursions:
    """kv=recursion."""
    return Recursions([Own(cache, batch, size) for _ in range(n_blocks(model, size))])


def following_first(
    cache: Cache, model: ModelConfig, size: SizeConfig, layout: Layout, batch: int
) -> Recursions:
    """kv=shared."""
    first = Own(cache, batch, size)
    return Recursions([first, *(Following(first) for _ in range(1, n_blocks(model, size)))])


def overwriting_first(
    cache: Cache, model: ModelConfig, size: SizeConfig, layout: Layout, batch: int
) -> Recursions:
    """kv=hybrid."""
    first = Own(cache, batch, size)
    return Recursions([first, *(Overwriting(first) for _ in range(1, n_blocks(model, size)))])


def reused_past(
    cache: Cache, model: ModelConfig, size: SizeConfig, layout: Layout, batch: int
) -> ReusedPast:
    """kv=cycle, sequence, middle_cycle."""
    sources = sources_of(model, sum(len(block) for block in layout.recursions))
    return ReusedPast(cache, batch, size, sources)
