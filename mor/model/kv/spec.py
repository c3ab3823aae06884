"""Which keys and values a recursion attends to (paper sec. 2.2.2): the torch-free half.

A mode is a row of `MODES`. `strategy` and `cache` name its torch halves: for a whole sequence
(`mor.model.kv.strategies`) and for one more token (`mor.inference.cache`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from mor.config import ConfigError, ModelConfig, SizeConfig
from mor.model.layout import Layout
from mor.model.lookup import lookup

Sources = Callable[[int, int], tuple[int, ...]]  # (depths to one set, depths) -> source of each


@dataclass(frozen=True)
class KVMode:
    """One value of `model.kv`."""

    strategy: str  # import path of the torch half
    cache: str  # import path of the same with a past
    reads_first: bool = False  # recursions after the first attend to the first one's tokens
    computes_later: bool = True  # they compute keys and values of their own
    sources: Sources | None = None  # a depth reads an earlier depth's keys and values

    def reach(self, r: int, n: float, first: float) -> float:
        """Keys that `n` tokens of recursion `r` attend to, where the first one took `first`."""
        return first if self.reads_first and r > 0 else n


def own_sources(share: int, n_depths: int) -> tuple[int, ...]:
    return tuple(range(n_depths))


def sequence_sources(share: int, n_depths: int) -> tuple[int, ...]:
    """With 6 depths and share 2: 0,0,2,2,4,4."""
    return tuple(depth - depth % share for depth in range(n_depths))


def cycle_sources(share: int, n_depths: int) -> tuple[int, ...]:
    """With 6 depths and share 2: 0,1,2,0,1,2."""
    period = math.ceil(n_depths / share)
    return tuple(depth % period for depth in range(n_depths))


def middle_cycle_sources(share: int, n_depths: int) -> tuple[int, ...]:
    """With 6 depths and share 2: 0,1,2,1,2,5."""
    inner = cycle_sources(share, n_depths - 2)
    return (0, *(1 + depth for depth in inner), n_depths - 1)


STRATEGIES, CACHES = "mor.model.kv.strategies", "mor.inference.cache"
REUSED = (f"{STRATEGIES}:reused", f"{CACHES}:reused_past")
MODES = {
    "recursion": KVMode(f"{STRATEGIES}:recursion_wise", f"{CACHES}:own_pasts"),
    "shared": KVMode(
        f"{STRATEGIES}:shared", f"{CACHES}:following_first", reads_first=True, computes_later=False
    ),
    "hybrid": KVMode(f"{STRATEGIES}:hybrid", f"{CACHES}:overwriting_first", reads_first=True),
    "cycle": KVMode(*REUSED, sources=cycle_sources),
    "sequence": KVMode(*REUSED, sources=sequence_sources),
    "middle_cycle": KVMode(*REUSED, sources=middle_cycle_sources),
}


def mode_of(model: ModelConfig) -> KVMode:
    """The mode of `model.kv`. Raises ConfigError for an unknown one."""
    return lookup("model.kv", model.kv, MODES)


def sources_of(model: ModelConfig, n_depths: int) -> tuple[int, ...]:
    """For each depth the one whose keys and values it reads: itself, or an earlier one."""
    return (mode_of(model).sources or own_sources)(model.kv_share, n_depths)


def computes_kv(model: ModelConfig, layout: Layout) -> tuple[tuple[bool, ...], ...]:
    """For each depth of each recursion: whether it computes keys and values of its own."""
    sizes = [len(block) for block in layout.recursions]
    mode = mode_of(model)
    if mode.sources:
        own = [s == depth for depth, s in enumerate(sources_of(model, sum(sizes)))]
        ends = [sum(sizes[:r]) for r in range(len(sizes) + 1)]
        return tuple(tuple(own[a:b]) for a, b in pairwise(ends))
    return tuple((mode.computes_later or r == 0,) * size for r, size in enumerate(sizes))


def computing_layers(model: ModelConfig, layout: Layout) -> set[int]:
    """The unique layers that compute keys and values somewhere: only they have weights for it."""
    inner = {
        layer
        for block, own in zip(layout.recursions, computes_kv(model, layout), strict=True)
        for layer, computes in zip(block, own, strict=True)
        if computes
    }
    return {*layout.prologue, *inner, *layout.epilogue}


def inactive_kv(model: ModelConfig, ties: bool) -> tuple[str, ...]:
    """Settings below `model.` that nothing of this model depends on."""
    mode = mode_of(model)
    names = () if mode.sources else ("kv_share",)
    alone = not ties and not mode.computes_later  # one recursion has none to share with
    return (*names, "kv") if alone else names


def check_kv(model: ModelConfig, size: SizeConfig, ties: bool, aligned: bool, routes: bool) -> None:
    """Raise ConfigError for keys and values that do not go with the rest of the model.

    `ties`: a block is applied several times; `aligned`: every recursion has the same layers;
    `routes`: tokens take different recursions by expert choice.
    """
    mode = mode_of(model)
    if mode.reads_first and not mode.computes_later and ties and not aligned:
        raise ConfigError(
            "model.kv",
            model.kv,
            f"under model.sharing={model.sharing} recursions hold different layers, so there are "
            "no keys and values of the same layer to share",
            "choose model.sharing=cycle or middle_cycle, or model.kv=recursion or sequence",
        )
    if mode.reads_first and mode.computes_later and not (routes and ties and aligned):
        raise ConfigError(
            "model.kv",
            model.kv,
            "overwriting shared keys and values is for expert choice with one block at each depth",
            "choose model=mor with model.sharing=cycle or middle_cycle, or model.kv=recursion",
        )
    if mode.sources is None:
        return
    in_order = ties and not aligned and not routes and mode.sources is sequence_sources
    if ties and not in_order:
        raise ConfigError(
            "model.kv",
            model.kv,
            "reading an earlier depth's keys and values is for model=vanilla (and kv=sequence for "
            "a recursive model with a sequence sharing)",
            "choose model.kv=shared or recursion",
        )
    if not 2 <= model.kv_share <= size.n_layers:
        raise ConfigError(
            "model.kv_share",
            model.kv_share,
            f"depths that read one set number from 2 to size.n_layers={size.n_layers}",
            "type model.kv_share=2",
        )
