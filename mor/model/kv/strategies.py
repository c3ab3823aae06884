"""Which keys and values a recursion attends to (paper sec. 2.2.2). Design notes:

- four strategies, each a few lines: before a block runs, `reads` says what each of its layers
  attends to; after it, `keep` is handed the keys and values, if the strategy `keeps` any;
- `RecursionWise`: among the routed tokens. `Shared`: depth j of every recursion reads what
  depth j of recursion 1 computed; later ones compute none. `Hybrid`: the same, with a recursion's
  own written over it where its tokens stand. `Reused`: a depth reads an earlier depth's (vanilla);
- where the routed tokens are recursion 1's own, attention stays plain causal; otherwise a mask
  compares original positions, made once per recursion and used by all its layers;
- running a block changes no strategy, so that activation checkpointing may run it twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, Self

from torch import Tensor

from mor.config import ModelConfig
from mor.model.kv.spec import mode_of, sources_of
from mor.model.layers import KV, Reads
from mor.model.layout import Layout
from mor.model.lookup import load_module
from mor.model.spans import Span, attention_mask, cells_of

Step = Callable[[Tensor, Span, Reads], tuple[Tensor, KV]]  # a layer, with its adapter
Plan = list[Reads | int]  # an index: what an earlier layer of the same block has computed


class Strategy(Protocol):
    """That of one block, or of the unshared layers at either end."""

    @property
    def keeps(self) -> bool:
        """Whether the block that runs next must hand over its keys and values."""

    def reads(self, span: Span, n_layers: int) -> Plan: ...

    def keep(self, span: Span, memory: list[KV]) -> None: ...


class Strategies(Protocol):
    """Those of all blocks of a forward pass."""

    def at(self, r: int) -> Strategy:
        """The strategy of block `r`: one for all, or one each."""


class ForAllBlocks:
    """A strategy that serves every block itself."""

    def at(self, r: int) -> Self:
        return self


class Cache(Protocol):
    """What a forward pass needs to go on from earlier tokens (`mor.inference.cache`)."""

    start: int
    prologue: Strategy
    epilogue: Strategy

    @property
    def recursions(self) -> Strategies: ...

    def enter(self, tokens: Tensor, separator: int | None) -> None: ...

    def leave(self) -> None: ...


class RecursionWise(ForAllBlocks):
    """Keys and values of the routed tokens only."""

    keeps = False

    def reads(self, span: Span, n_layers: int) -> Plan:
        return [Reads(mask=span.own_mask())] * n_layers

    def keep(self, span: Span, memory: list[KV]) -> None: ...


class Shared(ForAllBlocks):
    """Keys and values of recursion 1, the first that runs, for all recursions. One per forward."""

    def __init__(self) -> None:
        self.span: Span | None = None
        self.memory: list[KV] = []

    @property
    def keeps(self) -> bool:
        return self.span is None

    def reads(self, span: Span, n_layers: int) -> Plan:
        if self.span is None:
            return [Reads(mask=span.own_mask())] * n_layers
        return self.later(span, self.span)

    def later(self, span: Span, first: Span) -> Plan:
        mask = span.own_mask() if span is first else attention_mask(span, first)
        return [Reads(kv, mask) for kv in self.memory]

    def keep(self, span: Span, memory: list[KV]) -> None:
        if self.span is None:
            self.span, self.memory = span, memory


class Hybrid(Shared):
    """Shared ones, overwritten where a recursion's own tokens stand; not kept for the next one."""

    def later(self, span: Span, first: Span) -> Plan:
        mask = span.own_mask() if span is first else attention_mask(span, first)
        cells = cells_of(span, first)
        return [Reads(kv, mask, cells) for kv in self.memory]


class Reused(ForAllBlocks):
    """A depth reads what an earlier one has computed. Every block runs over the same tokens."""

    keeps = True

    def __init__(self, sources: Sequence[int]) -> None:
        self.sources = sources
        self.memory: list[KV] = []

    def reads(self, span: Span, n_layers: int) -> Plan:
        mask, before = span.own_mask(), len(self.memory)
        plan: Plan = []
        for depth in range(before, before + n_layers):
            source = self.sources[depth]
            if source == depth:
                plan.append(Reads(mask=mask))
            elif source >= before:
                plan.append(source - before)
            else:
                plan.append(Reads(self.memory[source], mask))
        return plan

    def keep(self, span: Span, memory: list[KV]) -> None:
        self.memory += memory


Build = Callable[[ModelConfig, Layout], Strategies]  # for one forward pass


def builder(model: ModelConfig) -> Build:
    """What `model.kv` asks for."""
    build: Build = load_module(mode_of(model).strategy)
    return build


def recursion_wise(model: ModelConfig, layout: Layout) -> Strategies:
    return RecursionWise()


def shared(model: ModelConfig, layout: Layout) -> Strategies:
    return Shared()


def hybrid(model: ModelConfig, layout: Layout) -> Strategies:
    return Hybrid()


def reused(model: ModelConfig, layout: Layout) -> Strategies:
    return Reused(sources_of(model, sum(len(block) for block in layout.recursions)))


def run_layers(
    steps: Sequence[Step], x: Tensor, span: Span, plan: Plan, keeps: bool
) -> tuple[Tensor, list[KV]]:
    """A block over a span, and the keys and values that its layers attended to."""
    memory: list[KV] = []
    mask = None
    for step, reads in zip(steps, plan, strict=True):
        if isinstance(reads, int):
            reads = Reads(memory[reads], mask)  # among the same tokens as the layers before it
        mask = reads.mask
        x, kv = step(x, span, reads)
        if keeps:
            memory.append(kv)
    return x, memory  # (T, D)
