"""Who sees whom, where plain causal attention does not say it. Design notes:

- a mask compares positions (and documents), ascending in each sequence. On CPU it is dense, (B, 1,
  n, n_keys), added to the scores: the reference. On CUDA it is a FlexAttention block mask: nothing
  of n x n_keys is ever held, and blocks that no query sees cost nothing (runtime.masks=auto);
- which blocks are seen, and which wholly, follows from the smallest and largest position of each
  block of queries and of keys, so that even making the mask holds (n / 128) x (n_keys / 128) bits;
- queries and keys are padded to whole blocks, and ragged ones to the length of a sequence, so that
  a batch of one shape compiles once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128  # queries and keys of one block
NARROWEST = 16  # channels of a head that FlexAttention's kernels need
NOWHERE = -1  # position of a query that sees nothing
PAST = 2**30  # position of a key that no query sees


class Places(NamedTuple):
    """Where the tokens of a grid stand: (B, n) each, ascending in a sequence."""

    positions: Tensor  # `end` or more in the pads
    documents: Tensor | None  # -1 in the pads; None: one document
    end: int  # first position after the sequence
    width: int  # that the grid is padded to, at least, where blocks are compiled for it


class Blocks(NamedTuple):
    """A block mask, made for queries and keys padded to whole blocks."""

    mask: BlockMask
    n_queries: int
    n_keys: int


Mask = Tensor | Blocks


def mask_between(queries: Places, keys: Places, dtype: torch.dtype, in_blocks: bool) -> Mask:
    """Each query sees the keys at or before its position: in blocks, or dense in `dtype`."""
    if in_blocks:
        return block_mask(queries, keys)
    return dense_mask(queries, keys, dtype)


def dense_mask(queries: Places, keys: Places, dtype: torch.dtype) -> Tensor:
    """0 where a key stands at or before its query, in its document; -inf elsewhere.

    Pads see pads, so that no row is void.
    """
    sees = queries.positions[:, :, None] >= keys.positions[:, None, :]
    if queries.documents is not None and keys.documents is not None:
        sees &= queries.documents[:, :, None] == keys.documents[:, None, :]
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return mask.masked_fill_(~sees, -torch.inf)[:, None]  # (B, 1, n, n_keys)


def block_mask(queries: Places, keys: Places) -> Blocks:
    """The same as blocks; pads see nothing."""
    own, own_documents = _padded(queries, NOWHERE)
    other, other_documents = _padded(keys, PAST)
    first, last = _bounds(own, own == NOWHERE)  # (B, n / BLOCK)
    nearest, furthest = _bounds(other, other == PAST)
    pads = (_in_blocks(own == NOWHERE).any(-1), _in_blocks(other == PAST).any(-1))
    seen = last[:, :, None] >= nearest[:, None, :]
    whole = (first[:, :, None] >= furthest[:, None, :]) & ~(pads[0][:, :, None] | pads[1][:, None])
    if own_documents is not None and other_documents is not None:
        a, b = _bounds(own_documents, own == NOWHERE)
        c, d = _bounds(other_documents, other == PAST)
        seen &= (b[:, :, None] >= c[:, None, :]) & (a[:, :, None] <= d[:, None, :])
        whole &= ((a == b)[:, :, None] & (c == d)[:, None, :]) & (a[:, :, None] == c[:, None, :])
    mask = BlockMask.from_kv_blocks(
        *_ordered(seen & ~whole),
        *_ordered(whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=_sees(own, other, own_documents, other_documents),
        seq_lengths=(own.shape[1], other.shape[1]),
    )
    return Blocks(mask, own.shape[1], other.shape[1])


def attend_blocks(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> Tensor:
    """Attention under a block mask: (B, H, n, Dh), (B, H_kv, n_keys, Dh) -> (B, H, n, Dh)."""
    n, width = q.shape[2], q.shape[3]
    wider = max(NARROWEST - width, 0)
    q = F.pad(q, (0, wider, 0, blocks.n_queries - n))
    k, v = (F.pad(x, (0, wider, 0, blocks.n_keys - x.shape[2])) for x in (k, v))
    mixed = _flex(q.is_cuda)(
        q,
        k,
        v,
        block_mask=blocks.mask,
        scale=width**-0.5,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return mixed[:, :, :n, :width]


def _flex(on_cuda: bool) -> Callable[..., Any]:
    """FlexAttention, compiled: on a GPU its eager form would hold all scores."""
    if torch.compiler.is_compiling() or not on_cuda:
        return flex_attention
    return _compiled_flex


def _compiled_flex(*arguments: Any, **options: Any) -> Any:
    with torch.compiler.set_stance("default"):  # also where layers run eagerly
        return _compiler()(*arguments, **options)


@functools.cache
def _compiler() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


def _sees(
    own: Tensor, other: Tensor, own_documents: Tensor | None, other_documents: Tensor | None
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    def causal(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return own[b, i] >= other[b, j]

    if own_documents is None or other_documents is None:
        return causal

    def within_document(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (own[b, i] >= other[b, j]) & (own_documents[b, i] == other_documents[b, j])

    return within_document


def _padded(places: Places, pad: int) -> tuple[Tensor, Tensor | None]:
    """Positions and documents of whole blocks; `pad` is the position of every pad."""
    positions, documents, end, width = places
    more = -(-max(positions.shape[1], width) // BLOCK) * BLOCK - positions.shape[1]
    positions = positions.masked_fill(positions >= end, pad)
    positions = F.pad(positions, (0, more), value=pad).to(torch.int32)
    if documents is not None:
        documents = F.pad(documents, (0, more), value=-1).to(torch.int32)
    return positions, documents


def _in_blocks(x: Tensor) -> Tensor:
    return x.unflatten(1, (-1, BLOCK))  # (B, n / BLOCK, BLOCK)


def _bounds(x: Tensor, pads: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest of each block, pads left out: above and below all others if alone."""
    smallest = _in_blocks(x.masked_fill(pads, PAST)).amin(-1)
    return smallest, _in_blocks(x.masked_fill(pads, NOWHERE)).amax(-1)


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of blocks how many are set, and their indices, the set ones first."""
    chosen = blocks[:, None].to(torch.int32)  # (B, 1, n / BLOCK, n_keys / BLOCK)
    order = chosen.argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32), order.to(torch.int32)
