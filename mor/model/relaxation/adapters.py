"""Per-recursion parameters beside the tied block (paper app. E). Design notes:

- two places: in front of and behind a block (`Vectors`), and inside each of its layers (`Adapter`s,
  one for every depth of every recursion);
- encoding adds a learned vector to the state that enters, scaling multiplies what leaves;
- LoRA adds B A x to q and v, DoRA also gives each of their outputs a magnitude of its own; the
  norms it divides by carry no gradient, as its authors do it;
- a prompt is learned keys and values that every token attends to, in a softmax of their own;
- all start as the plain tied model: vectors at 0 or 1, B and the prompt's gate at 0, magnitudes at
  the norms of the weights. So `start` runs again when the weights are replaced (initialise).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mor.config import ModelConfig, RelaxationConfig, SizeConfig
from mor.model.attention import attend
from mor.model.kv.spec import computes_kv
from mor.model.layers import PLAIN, Adapter, Layer, Linear
from mor.model.layout import Layout
from mor.model.lookup import load_module
from mor.model.relaxation.spec import relaxation_of


class LowRank(nn.Module):
    """x -> B A x, B at 0."""

    def __init__(self, d_in: int, d_out: int, rank: int) -> None:
        super().__init__()
        self.a, self.b = Linear(d_in, rank), Linear(rank, d_out)

    def start(self, base: Linear) -> None:
        nn.init.zeros_(self.b.weight)

    def forward(self, base: Linear, x: Tensor) -> Tensor:
        return base(x) + self.b(self.a(x))


class Decomposed(LowRank):
    """The sum's rows, scaled to a learned magnitude."""

    def __init__(self, d_in: int, d_out: int, rank: int) -> None:
        super().__init__(d_in, d_out, rank)
        self.magnitude = nn.Parameter(torch.ones(d_out))

    def start(self, base: Linear) -> None:
        super().start(base)
        self.magnitude.copy_(base.weight.norm(dim=1))

    def forward(self, base: Linear, x: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            norms = torch.addmm(base.weight, self.b.weight, self.a.weight).norm(dim=1)
        out = super().forward(base, x)
        return out * (self.magnitude / norms).to(out.dtype)


class QueryValue(Adapter):
    """LoRA or DoRA on q and, where the depth computes it, v."""

    def __init__(self, kind: type[LowRank], size: SizeConfig, rank: int, computes: bool) -> None:
        super().__init__()
        self.q_change = kind(size.d_model, size.n_heads * size.d_head, rank)
        if computes:
            self.v_change = kind(size.d_model, size.n_kv_heads * size.d_head, rank)

    def q(self, q: Linear, x: Tensor) -> Tensor:
        return self.q_change(q, x)

    def v(self, v: Linear, x: Tensor) -> Tensor:
        return self.v_change(v, x)

    def start(self, layer: Layer) -> None:
        self.q_change.start(layer.attention.q)
        if hasattr(self, "v_change"):
            self.v_change.start(layer.attention.v)


class Prompt(Adapter):
    """Learned keys and values, attended to beside the tokens' own, behind a gate at 0."""

    def __init__(self, size: SizeConfig, length: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.empty(size.n_kv_heads, length, size.d_head))
        self.values = nn.Parameter(torch.empty(size.n_kv_heads, length, size.d_head))
        self.gate = nn.Parameter(torch.zeros(1))

    def attend(self, mixed: Tensor, queries: Tensor) -> Tensor:
        batch = len(queries)
        k, v = (x.to(queries.dtype).expand(batch, -1, -1, -1) for x in (self.keys, self.values))
        seen = attend(queries, k, v, is_causal=False)
        return mixed + self.gate.to(mixed.dtype) * seen  # (B, H, n, Dh)

    def start(self, layer: Layer) -> None:
        nn.init.zeros_(self.gate)


class Vectors(nn.Module):
    """A vector for each recursion, used in front of its block or behind it."""

    def __init__(self, first: Tensor, n_recursions: int) -> None:
        super().__init__()
        self.of = nn.ParameterList(first.clone() for _ in range(n_recursions))

    def enter(self, r: int, x: Tensor) -> Tensor:
        return x

    def leave(self, r: int, x: Tensor) -> Tensor:
        return x


class Encoding(Vectors):
    """A vector added to the state that enters."""

    def __init__(self, n_recursions: int, width: int) -> None:
        super().__init__(torch.zeros(width), n_recursions)

    def enter(self, r: int, x: Tensor) -> Tensor:
        return x + self.of[r]


class Scaling(Vectors):
    """A vector that multiplies what leaves."""

    def __init__(self, n_recursions: int, width: int) -> None:
        super().__init__(torch.ones(width), n_recursions)

    def leave(self, r: int, x: Tensor) -> Tensor:
        return x * self.of[r]


class Relaxation(nn.Module):
    """The per-recursion parameters of one model; none where none are asked for."""

    def __init__(self, model: ModelConfig, size: SizeConfig, layout: Layout) -> None:
        super().__init__()
        spec = relaxation_of(model)
        self.vectors: Vectors | None = None
        self.adapters: nn.ModuleList | None = None
        if spec.vectors:
            self.vectors = load_module(spec.vectors)(model.n_recursions, size.d_model)
        if spec.adapter:
            build = load_module(spec.adapter)
            self.adapters = nn.ModuleList(
                nn.ModuleList(build(model.relaxation, size, own) for own in block)
                for block in computes_kv(model, layout)
            )

    def of_layers(self, r: int, n_layers: int) -> Sequence[Adapter]:
        """The adapters of a recursion, one for each layer of its block."""
        if self.adapters is None:
            return [PLAIN] * n_layers
        return cast(Sequence[Adapter], self.adapters[r])

    def enter(self, r: int, x: Tensor) -> Tensor:
        return x if self.vectors is None else self.vectors.enter(r, x)  # (T, D)

    def leave(self, r: int, x: Tensor) -> Tensor:
        return x if self.vectors is None else self.vectors.leave(r, x)  # (T, D)

    @torch.no_grad()
    def start(self, layers: nn.ModuleList, layout: Layout) -> None:
        """Put every adapter where it changes nothing, given the layers' weights."""
        for r, block in enumerate(layout.recursions):
            for adapter, i in zip(self.of_layers(r, len(block)), block, strict=True):
                if isinstance(adapter, QueryValue | Prompt):
                    adapter.start(cast(Layer, layers[i]))


def lora(config: RelaxationConfig, size: SizeConfig, computes: bool) -> Adapter:
    return QueryValue(LowRank, size, config.rank, computes)


def dora(config: RelaxationConfig, size: SizeConfig, computes: bool) -> Adapter:
    return QueryValue(Decomposed, size, config.rank, computes)


def prompt(config: RelaxationConfig, size: SizeConfig, computes: bool) -> Adapter:
    return Prompt(size, config.prompt_length)
