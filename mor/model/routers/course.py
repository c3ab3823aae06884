"""What inference decides, for single tokens: who takes the next block, what it reads, what it
leaves. The causal rule of `apply`, in a form that lets tokens of different blocks share a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mor.config import ConfigError


@dataclass
class Tokens:
    """Some tokens in front of the same block."""

    x: Tensor  # (T, D) states
    first: Tensor  # (T, D) their states in front of block 0, for a course that reads them
    notes: Tensor  # (T, 2) what a course keeps of its decisions; written in place
    at: Tensor  # (T,) positions in their sequences

    def positions(self) -> Tensor:
        return self.at

    def part(self, some: slice) -> Tokens:
        """Consecutive ones of them, over the same memory."""
        return Tokens(self.x[some], self.first[some], self.notes[some], self.at[some])


Groups = Sequence[tuple[int, slice]]  # blocks, and which of the tokens stand in front of each


class Course:
    """Every token takes every block.

    A router overrides `decide`, `enter` and `leave`, for tokens in front of one block; the forms
    `*_each` take tokens in front of several, one after the other unless they can do it at once.
    """

    reads_first = False  # whether it reads `Tokens.first`
    passes_over = False  # a token that does not take a block meets the next one, instead of leaving

    def __init__(self, n_blocks: int) -> None:
        self.n_blocks = n_blocks

    def decide(self, r: int, tokens: Tokens) -> Tensor | None:
        """Which tokens take block `r`, (T,) bool; None: all of them."""
        return None

    def enter(self, r: int, tokens: Tokens) -> Tensor:
        """What block `r` reads: (T, D)."""
        return tokens.x

    def leave(self, r: int, tokens: Tokens, f: Tensor) -> Tensor:
        """The states after block `r` has made `f` (T, D) of them."""
        return f

    def decide_each(self, groups: Groups, tokens: Tokens) -> Tensor | None:
        """`decide` for tokens in groups: (T,) bool; None: all take theirs."""
        chosen = [self.decide(r, tokens.part(some)) for r, some in groups]
        if all(one is None for one in chosen):
            return None
        everyone = tokens.at.new_ones(len(tokens.at), dtype=torch.bool)
        parts = zip(groups, chosen, strict=True)
        return joined([everyone[some] if one is None else one for (_, some), one in parts])

    def enter_each(self, groups: Groups, tokens: Tokens) -> Tensor:
        """What the blocks of the groups read: (T, D)."""
        return joined([self.enter(r, tokens.part(some)) for r, some in groups])

    def leave_each(self, groups: Groups, tokens: Tokens, f: Tensor) -> Tensor:
        """The states after the blocks of the groups have made `f` (T, D) of them."""
        return joined([self.leave(r, tokens.part(some), f[some]) for r, some in groups])


def joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def within(limit: int | None, n_blocks: int) -> int:
    """A routed model's blocks under a limit. Raises ConfigError for one that it cannot have."""
    if limit is None:
        return n_blocks
    if not 1 <= limit <= n_blocks:
        raise ConfigError(
            "max_recursions",
            limit,
            f"this model has {n_blocks} recursions",
            f"type a number from 1 to {n_blocks}",
        )
    return limit
