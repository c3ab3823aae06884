"""Spans: the tokens that pass a block together. Design notes:

- activations are flat, (T, D): every linear map runs on the tokens of the span and on nothing else;
- attention alone needs sequences, (B, n, H, Dh). A span says how to get there and back, in two
  cases. A *rectangle* has n tokens of every sequence: a view, nothing moves. A *ragged* span has as
  many as each sequence likes: rows are scattered into a (B, longest) grid with the pads at the END,
  so that plain causal attention is right for the real tokens and the pads need no mask;
- rotary angles are those of the original positions, looked up once per span, not once per layer;
- plain causal attention needs no mask. One is made, once per span, where queries and keys are other
  tokens, or where tokens attend within their own document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mor.model.masks import Mask, Places, mask_between


@dataclass(frozen=True)
class Tables:
    """Cosines and sines of a forward pass; the sine's first half is negated (see `rotate`)."""

    cos: Tensor  # (S, 1, Dh)
    sin: Tensor  # (S, 1, Dh)
    documents: Tensor | None = None  # (B, S + 1), the document of each token, -1 at the end (pads)
    start: int = 0  # position of the first token; above 0 only while decoding
    blocks: bool = False  # masks are block masks, not dense

    @property
    def length(self) -> int:
        return self.cos.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.cos.dtype


class Rectangle:
    """n tokens of each sequence. `where` is their index in the flat batch; None: every token."""

    def __init__(self, batch: int, length: int, tables: Tables, where: Tensor | None = None):
        self.batch, self.length, self.tables, self.where = batch, length, tables, where
        self.shape = (batch, length)
        self.counts: Sequence[int] = (length,) * batch
        if where is None:
            self.cos, self.sin = tables.cos, tables.sin  # (S, 1, Dh)
        else:
            positions = (where % tables.length).view(self.shape)
            self.cos, self.sin = tables.cos[positions], tables.sin[positions]  # (B, n, 1, Dh)

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    def to_grid(self, heads: Tensor) -> Tensor:  # (B, n, H, Dh) -> the same
        return heads

    def from_grid(self, heads: Tensor) -> Tensor:  # (B, n, H, Dh) -> (T, H * Dh)
        return heads.reshape(self.tokens, -1)

    def cells(self) -> Tensor:
        return torch.arange(self.tokens, device=self.tables.cos.device)  # (T,), in the flat grid

    def positions(self) -> Tensor:
        return self.grid().flatten()  # (T,), in flat order

    def own_mask(self) -> Mask | None:
        """The mask among the span's own tokens; None: plain causal."""
        return None if self.tables.documents is None else attention_mask(self, self)

    def grid(self) -> Tensor:
        """Original positions, ascending in each sequence."""  # (B, n)
        if self.where is None:
            first, device = self.tables.start, self.tables.cos.device
            return torch.arange(first, first + self.length, device=device).expand(self.batch, -1)
        return (self.where % self.tables.length + self.tables.start).view(self.shape)


class Ragged:
    """counts[b] tokens of sequence b, in any flat order; `slots`: each token's cell in the grid."""

    def __init__(self, counts: Sequence[int], where: Tensor, slots: Tensor, tables: Tables):
        self.batch, self.length = len(counts), max(counts)
        self.counts, self.where, self.slots, self.tables = counts, where, slots, tables
        self.tokens = sum(counts)
        self.shape = (self.tokens,)
        positions = where % tables.length
        self.cos = tables.cos.index_select(0, positions)  # (T, 1, Dh)
        self.sin = tables.sin.index_select(0, positions)

    def to_grid(self, heads: Tensor) -> Tensor:  # (T, H, Dh) -> (B, longest, H, Dh)
        padded = heads.new_zeros(self.batch * self.length, *heads.shape[1:])
        padded = padded.index_copy(0, self.slots, heads)
        return padded.view(self.batch, self.length, *heads.shape[1:])

    def from_grid(self, heads: Tensor) -> Tensor:  # (B, longest, H, Dh) -> (T, H * Dh)
        return heads.flatten(0, 1).index_select(0, self.slots).flatten(1)

    def cells(self) -> Tensor:
        return self.slots  # (T,), in the flat grid

    def positions(self) -> Tensor:
        return self.where % self.tables.length + self.tables.start  # (T,), in flat order

    def own_mask(self) -> Mask | None:
        """The mask among the span's own tokens; None: plain causal."""
        return None if self.tables.documents is None else attention_mask(self, self)

    def grid(self) -> Tensor:
        """Original positions, ascending in each sequence; S (past the end) in the pads."""
        end = self.tables.start + self.tables.length
        cells = self.where.new_full((self.batch * self.length,), end)
        cells[self.slots] = self.positions()
        return cells.view(self.batch, self.length)  # (B, longest)


Span = Rectangle | Ragged


def ragged(active: Tensor, where: Tensor, counts: Sequence[int], tables: Tables) -> Ragged:
    """The span of the tokens marked in `active`, listed in `where` in whatever order."""  # (B, S)
    rank = active.cumsum(1) - 1  # (B, S): how many active tokens stand before it
    rows = torch.arange(len(counts), device=where.device)[:, None] * max(counts)
    slots = (rank + rows).flatten().index_select(0, where)
    return Ragged(counts, where, slots, tables)


def attention_mask(queries: Span, keys: Span) -> Mask:
    """Each query sees the keys at or before its position, in its document."""
    tables = queries.tables
    return mask_between(_places(queries), _places(keys), tables.dtype, tables.blocks)


def _places(span: Span) -> Places:
    positions, documents = span.grid(), span.tables.documents
    return Places(
        positions,
        None if documents is None else documents.gather(1, positions),
        span.tables.start + span.tables.length,
        span.tables.length if isinstance(span, Ragged) else span.length,
    )


def cells_of(tokens: Span, within: Span) -> Tensor:
    """For each token of a span, its cell in the grid of a wider one."""
    if within.where is None:
        return tokens.cells() if tokens.where is None else tokens.where
    places = within.where.new_zeros(within.batch * within.tables.length)
    places = places.index_copy(0, within.where, within.cells())
    assert tokens.where is not None
    return places.index_select(0, tokens.where)  # (T,)


def documents_of(tokens: Tensor, separator: int) -> Tensor:
    """The document of each token, counted in its sequence; a separator closes its own."""  # (B, S)
    closed = (tokens == separator).long()
    return torch.nn.functional.pad(closed.cumsum(1) - closed, (0, 1), value=-1)  # (B, S + 1)
