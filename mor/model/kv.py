"""Which keys and values a recursion attends to (paper sec. 2.2.2). Notable about it:

- two strategies with one method, `run`, which takes a recursion's layers over a span:
  `RecursionWise`, where each recursion attends among its own tokens, and `Shared`, where depth j of
  every recursion reads the keys and values that depth j of recursion 1 computed over its tokens;
- later recursions compute no keys and values under `Shared`. With `sequence` sharing their layers
  differ from recursion 1's at the same depth, and have no weights for keys and values at all;
- where the travelling tokens are recursion 1's own, attention stays plain causal; otherwise a mask
  compares original positions, made once per recursion and used by all its layers.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mor.model.layers import KV, Layer
from mor.model.sharing import Layout
from mor.model.spans import Span


class RecursionWise:
    """Keys and values of the travelling tokens only."""

    def run(self, layers: Iterable[Layer], x: Tensor, span: Span) -> Tensor:
        for layer in layers:
            x, _ = layer(x, span)
        return x  # (T, D)


class Shared:
    """Keys and values of recursion 1, the first that runs, for all recursions. One per forward."""

    def __init__(self) -> None:
        self.span: Span | None = None
        self.memory: list[KV] = []

    def run(self, layers: Iterable[Layer], x: Tensor, span: Span) -> Tensor:
        if self.span is None:
            self.span = span
            for layer in layers:
                x, kv = layer(x, span)
                self.memory.append(kv)
            return x
        mask = None if span is self.span else position_mask(span, self.span)
        for layer, kv in zip(layers, self.memory, strict=True):
            x, _ = layer(x, span, kv, mask)
        return x  # (T, D)


def position_mask(queries: Span, keys: Span) -> Tensor:
    """0 where a key stands at or before its query, -inf after it; pads see pads: no row is void."""
    sees = queries.grid()[:, None, :, None] >= keys.grid()[:, None, None, :]
    mask = torch.zeros(sees.shape, dtype=queries.tables.dtype, device=sees.device)
    return mask.masked_fill_(~sees, -torch.inf)  # (B, 1, n, n_keys)


def computing_layers(kv: str, layout: Layout) -> set[int]:
    """The unique layers that compute keys and values somewhere."""
    if kv == "recursion":
        return set(layout.depths)
    return {*layout.prologue, *layout.recursions[0], *layout.epilogue}
