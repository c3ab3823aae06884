"""Sharing patterns: which unique layer is applied at which depth (paper sec. 2.1, app. A.1). No
torch.

A pattern is a row of `PATTERNS`; a new one is a new row. For L = 9 and Nr = 3: cycle (0,1,2)x3;
sequence 0,0,0,1,1,1,2,2,2; middle_cycle and middle_sequence keep the first and the last layer
unique and share the layers between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mor.config import ModelConfig, SizeConfig
from mor.model.layout import Layout
from mor.model.lookup import lookup

Order = Callable[[int, int], list[int]]  # (layers of the block, recursions) -> layer at each depth


def in_cycles(n_block: int, n_recursions: int) -> list[int]:
    return list(range(n_block)) * n_recursions


def in_sequence(n_block: int, n_recursions: int) -> list[int]:
    return [layer for layer in range(n_block) for _ in range(n_recursions)]


@dataclass(frozen=True)
class Pattern:
    """How the layers of the shared block are ordered over the depths."""

    order: Order
    unique_ends: bool  # the first and the last layer are applied once, outside of the recursions
    aligned: bool  # every recursion applies the same layers, so depth j is the same layer in each

    @property
    def unshared(self) -> int:
        return 2 if self.unique_ends else 0


PATTERNS = {
    "cycle": Pattern(in_cycles, unique_ends=False, aligned=True),
    "sequence": Pattern(in_sequence, unique_ends=False, aligned=False),
    "middle_cycle": Pattern(in_cycles, unique_ends=True, aligned=True),
    "middle_sequence": Pattern(in_sequence, unique_ends=True, aligned=False),
}


def pattern_of(model: ModelConfig) -> Pattern:
    """The pattern of `model.sharing`. Raises ConfigError for an unknown one."""
    return lookup("model.sharing", model.sharing, PATTERNS)


def divided(model: ModelConfig, size: SizeConfig) -> int:
    """Layers of the shared block when `model.block_layers` is not set: rounded up (135M: 1 + 10x3
    + 1 = 32 layers)."""
    return math.ceil((size.n_layers - pattern_of(model).unshared) / model.n_recursions)


def shared_layout(model: ModelConfig, size: SizeConfig) -> Layout:
    """The depths of a model that applies one block `model.n_recursions` times."""
    pattern, n_recursions = pattern_of(model), model.n_recursions
    n_block = divided(model, size) if model.block_layers is None else model.block_layers
    first = 1 if pattern.unique_ends else 0
    order = pattern.order(n_block, n_recursions)
    recursions = tuple(
        tuple(first + layer for layer in order[r * n_block : (r + 1) * n_block])
        for r in range(n_recursions)
    )
    if not pattern.unique_ends:
        return Layout((), recursions, ())
    return Layout((0,), recursions, (n_block + 1,))
