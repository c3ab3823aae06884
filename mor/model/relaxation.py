"""What each recursion may have of its own beside the tied block (paper app. E). Notable about it:

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
import torch.nn.functional as F
from torch import Tensor, nn

from mor.config import ModelConfig, RelaxationConfig, SizeConfig
from mor.model.layers import PLAIN, Adapter, Layer, Linear
from mor.model.sharing import Layout, computes_kv


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
        seen = F.scaled_dot_product_attention(
            queries, k, v, enable_gqa=queries.shape[1] != k.shape[1]
        )
        return mixed + self.gate.to(mixed.dtype) * seen  # (B, H, n, Dh)

    def start(self, layer: Layer) -> None:
        nn.init.zeros_(self.gate)


class Vectors(nn.Module):
    """A vector for each recursion: added on the way in, or multiplied on the way out."""

    def __init__(self, kind: str, n_recursions: int, width: int) -> None:
        super().__init__()
        self.adds = kind == "encoding"
        first = torch.zeros if self.adds else torch.ones
        self.of = nn.ParameterList(first(width) for _ in range(n_recursions))

    def enter(self, r: int, x: Tensor) -> Tensor:
        return x + self.of[r] if self.adds else x

    def leave(self, r: int, x: Tensor) -> Tensor:
        return x if self.adds else x * self.of[r]


class Relaxation(nn.Module):
    """All that the recursions of one model have of their own; nothing where none is asked for."""

    def __init__(self, model: ModelConfig, size: SizeConfig, layout: Layout) -> None:
        super().__init__()
        config = model.relaxation
        self.vectors: Vectors | None = None
        self.adapters: nn.ModuleList | None = None
        if config.type in ("encoding", "scaling"):
            self.vectors = Vectors(config.type, model.n_recursions, size.d_model)
        elif config.type != "none":
            self.adapters = nn.ModuleList(
                nn.ModuleList(build_adapter(config, size, own) for own in block)
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


def build_adapter(config: RelaxationConfig, size: SizeConfig, computes: bool) -> Adapter:
    if config.type == "prompt":
        return Prompt(size, config.prompt_length)
    kind = {"lora": LowRank, "dora": Decomposed}[config.type]
    return QueryValue(kind, size, config.rank, computes)
