"""Which unique layer is applied at which depth. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Indices of unique layers in the order in which a token that never exits meets them."""

    prologue: tuple[int, ...]  # before the first recursion, every token
    recursions: tuple[tuple[int, ...], ...]  # one tuple of layers for each recursion
    epilogue: tuple[int, ...]  # after the last recursion, every token

    @property
    def depths(self) -> tuple[int, ...]:
        inner = tuple(layer for block in self.recursions for layer in block)
        return self.prologue + inner + self.epilogue

    @property
    def unique_layers(self) -> int:
        return len(set(self.depths))

    @property
    def effective_layers(self) -> int:
        return len(self.depths)
