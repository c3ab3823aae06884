"""Which unique layer stands at which depth (paper sec. 2.1, app. A.1). Plain Python, no torch.

For L = 9 and Nr = 3: cycle (0,1,2)x3; sequence 0,0,0,1,1,1,2,2,2; middle_cycle and
middle_sequence keep the first and the last layer unique and share what stands between.
Where the layers do not divide, the block is rounded up: 135M is 1 + 10x3 + 1 = 32 layers.

Also here, because planning asks for them: which depths compute keys and values (sec. 2.2.2), and
the share of tokens that each recursion takes at a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from mor.config import ModelConfig, SizeConfig

REUSING = ("cycle", "sequence", "middle_cycle")  # values of model.kv that read an earlier depth's


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


def block_layers(model: ModelConfig, size: SizeConfig) -> int:
    """Unique layers in the shared block: as configured, or divided and rounded up."""
    if model.architecture == "vanilla":
        return size.n_layers
    if model.block_layers is not None:
        return model.block_layers
    between = size.n_layers - (2 if model.sharing.startswith("middle_") else 0)
    return math.ceil(between / model.n_recursions)


def layout(model: ModelConfig, size: SizeConfig) -> Layout:
    """The depths of a model; a vanilla one is a single recursion of all its layers."""
    n_block, n_recursions = block_layers(model, size), model.n_recursions
    middle = model.architecture != "vanilla" and model.sharing.startswith("middle_")
    first = 1 if middle else 0
    if model.sharing.endswith("sequence"):
        order = [layer for layer in range(n_block) for _ in range(n_recursions)]
    else:
        order = list(range(n_block)) * n_recursions
    recursions = tuple(
        tuple(first + layer for layer in order[r * n_block : (r + 1) * n_block])
        for r in range(n_recursions)
    )
    if not middle:
        return Layout((), recursions, ())
    return Layout((0,), recursions, (n_block + 1,))


# -- keys and values ---------------------------------------------------------------------------


def kv_sources(kv: str, share: int, n_depths: int) -> tuple[int, ...]:
    """For each depth the one whose keys and values it reads: itself, or an earlier one.

    With 6 depths and share 2: cycle 0,1,2,0,1,2; sequence 0,0,2,2,4,4; middle_cycle 0,1,2,1,2,5.
    """
    if kv == "sequence":
        return tuple(depth - depth % share for depth in range(n_depths))
    if kv == "cycle":
        period = math.ceil(n_depths / share)
        return tuple(depth % period for depth in range(n_depths))
    if kv == "middle_cycle":
        inner = kv_sources("cycle", share, n_depths - 2)
        return (0, *(1 + depth for depth in inner), n_depths - 1)
    return tuple(range(n_depths))


def computes_kv(model: ModelConfig, depths: Layout) -> tuple[tuple[bool, ...], ...]:
    """For each depth of each recursion: whether it computes keys and values of its own."""
    sizes = [len(block) for block in depths.recursions]
    if model.kv in REUSING:
        sources = kv_sources(model.kv, model.kv_share, sum(sizes))
        own = [source == depth for depth, source in enumerate(sources)]
        ends = [sum(sizes[:r]) for r in range(len(sizes) + 1)]
        return tuple(tuple(own[a:b]) for a, b in pairwise(ends))
    return tuple((model.kv != "shared" or r == 0,) * size for r, size in enumerate(sizes))


def computing_layers(model: ModelConfig, depths: Layout) -> set[int]:
    """The unique layers that compute keys and values somewhere: only they have weights for it."""
    inner = {
        layer
        for block, own in zip(depths.recursions, computes_kv(model, depths), strict=True)
        for layer, computes in zip(block, own, strict=True)
        if computes
    }
    return {*depths.prologue, *inner, *depths.epilogue}


# -- capacities --------------------------------------------------------------------------------


def capacities(model: ModelConfig, step: int | None = None) -> tuple[float, ...]:
    """Share of a sequence's tokens that each recursion takes: 1 where nothing is routed.

    Expert choice takes (Nr - r + 1) / Nr at recursion r (paper sec. 2.2.1); a perfectly balanced
    token choice takes the same. During capacity warm-up it depends on the step (from 0): a cosine
    from 1 to the target; no step, or a later one, has the target.
    """
    n = model.n_recursions
    if model.router.type == "none":
        return (1.0,) * n
    target = model.capacity or tuple((n - r) / n for r in range(n))
    steps = model.router.capacity_warmup_steps
    if step is None or step + 1 >= steps:
        return target
    extra = 0.5 * (1 + math.cos(math.pi * (step + 1) / steps))
    return tuple(c + (1 - c) * extra for c in target)


def selected(capacity: float, seq_len: int) -> int:
    """Tokens of a sequence that expert choice selects: max(1, int(capacity x S))."""
    return max(1, int(capacity * seq_len))
