"""What inference decides, for single tokens: who takes the next block, what it reads, what it
leaves. The causal rule of `apply`, in a form that lets tokens of different blocks share a batch."""

from __future__ import annotations

from dataclasses import dataclass

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


class Course:
    """Every token takes every block."""

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
