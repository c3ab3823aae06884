"""The decoder layer: RMSNorm, rotary embedding, grouped-query attention, SwiGLU. Design notes:

- activations are flat, (T, D); only attention sees sequences, through the span (`mor.model.spans`);
- weights only, no biases, and no initialisation here: `Transformer` draws all of them from one
  generator, so that the global random state stays untouched;
- RMSNorm brings its own backward on CPU, where torch composes it of seven passes over memory: 4.4
  ms against 13.4 ms at (2048, 576), forward and backward, one thread. On a GPU torch's is fused;
- norms work in float32, also under autocast; their output is cast once for the maps that read it;
- a layer that reads reused keys and values computes none of its own, and one that never
  computes any has no weights for them;
- what differs between two passes through a tied layer comes in from outside: what it reads
  (`Reads`) and the per-recursion parameters (`Adapter`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mor.config import ModelConfig, SizeConfig
from mor.model.attention import attend
from mor.model.masks import Mask
from mor.model.spans import Span, Tables

KV = tuple[Tensor, Tensor]  # keys and values, each (B, n, H_kv, Dh)


class Reads(NamedTuple):
    """What a layer attends to: by default the keys and values of its own tokens, plain causal."""

    kv: KV | None = None  # reused ones
    mask: Mask | None = None  # None: plain causal
    cells: Tensor | None = None  # (T,): write own keys and values over `kv` there


OWN = Reads()


class Linear(nn.Module):
    """A linear map without bias."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        if x.is_cpu and x.dtype == torch.float32 and not torch.compiler.is_compiling():
            return _RMSNormCPU.apply(x, self.weight, self.eps).to(dtype)
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(dtype)


class _RMSNormCPU(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + eps), in as few passes over memory as eager torch can."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(eps).rsqrt_()  # (T, 1)
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, scale, weight = ctx.saved_tensors
        product = grad * normed
        grad_weight = product.sum(0)
        along = product.mul_(weight).mean(-1, keepdim=True)  # (T, 1)
        grad_x = (grad * weight).addcmul_(normed, along, value=-1).mul_(scale)
        return grad_x, grad_weight, None


def rotary_tables(
    length: int,
    d_head: int,
    theta: float,
    device: torch.device,
    dtype: torch.dtype,
    documents: Tensor | None = None,
    start: int = 0,
    blocks: bool = False,
) -> Tables:
    """Angles position / theta^(2i/Dh), Llama style: dimension i turns with i + Dh/2."""
    exponents = torch.arange(0, d_head, 2, device=device, dtype=torch.float32) / d_head
    positions = torch.arange(start, start + length, device=device, dtype=torch.float32)
    angles = positions[:, None, None] / theta**exponents  # (S, 1, Dh/2)
    cos, sin = angles.cos(), angles.sin()
    cos, sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
    return Tables(cos.to(dtype), sin.to(dtype), documents, start, blocks)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys by their positions: (a, b) -> (a cos - b sin, b cos + a sin)."""
    a, b = x.chunk(2, -1)
    return torch.addcmul(x * cos, torch.cat((b, a), -1), sin)  # (..., H, Dh)


class Adapter(nn.Module):
    """Per-recursion parameters of a tied layer: here none (`mor.model.relaxation`)."""

    def q(self, q: Linear, x: Tensor) -> Tensor:
        return q(x)

    def v(self, v: Linear, x: Tensor) -> Tensor:
        return v(x)

    def attend(self, mixed: Tensor, queries: Tensor) -> Tensor:
        return mixed  # (B, H, n, Dh)


PLAIN = Adapter()


class Attention(nn.Module):
    """Causal attention among a span's tokens, or from them to given keys and values."""

    def __init__(self, size: SizeConfig, computes_kv: bool) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.d_head = size.n_heads, size.n_kv_heads, size.d_head
        self.q = Linear(size.d_model, size.n_heads * size.d_head)
        if computes_kv:
            self.k = Linear(size.d_model, size.n_kv_heads * size.d_head)
            self.v = Linear(size.d_model, size.n_kv_heads * size.d_head)
        self.o = Linear(size.n_heads * size.d_head, size.d_model)

    def forward(self, x: Tensor, span: Span, reads: Reads, adapter: Adapter) -> tuple[Tensor, KV]:
        q = adapter.q(self.q, x).view(*span.shape, self.n_heads, self.d_head)
        q = span.to_grid(rotate(q, span.cos, span.sin)).transpose(1, 2)  # (B, H, n, Dh)
        k, v = kv = self.keys_values(x, span, reads, adapter)
        mixed = attend(q, k.transpose(1, 2), v.transpose(1, 2), reads.mask)  # (B, H, n, Dh)
        mixed = adapter.attend(mixed, q)
        return self.o(span.from_grid(mixed.transpose(1, 2))), kv

    def keys_values(self, x: Tensor, span: Span, reads: Reads, adapter: Adapter) -> KV:
        """Computed, reused, or reused with the computed ones written over them."""
        if reads.kv is not None and reads.cells is None:
            return reads.kv
        k = self.k(x).view(*span.shape, self.n_kv_heads, self.d_head)
        v = adapter.v(self.v, x).view(*span.shape, self.n_kv_heads, self.d_head)
        k = rotate(k, span.cos, span.sin)
        if reads.kv is None or reads.cells is None:
            return span.to_grid(k), span.to_grid(v)
        return write_over(reads.kv[0], k, reads.cells), write_over(reads.kv[1], v, reads.cells)


def write_over(grid: Tensor, heads: Tensor, cells: Tensor) -> Tensor:
    """A copy of (B, n, H, Dh) with the rows of some tokens replaced."""
    flat = grid.flatten(0, 1).index_copy(0, cells, heads.reshape(-1, *grid.shape[2:]))
    return flat.view(grid.shape)


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, size: SizeConfig) -> None:
        super().__init__()
        self.gate = Linear(size.d_model, size.d_ff)
        self.up = Linear(size.d_model, size.d_ff)
        self.down = Linear(size.d_ff, size.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). Returns the keys and values it attended to."""

    def __init__(self, model: ModelConfig, size: SizeConfig, computes_kv: bool = True) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(size.d_model, model.norm_eps)
        self.attention = Attention(size, computes_kv)
        self.mlp_norm = RMSNorm(size.d_model, model.norm_eps)
        self.mlp = MLP(size)

    def forward(
        self, x: Tensor, span: Span, reads: Reads = OWN, adapter: Adapter = PLAIN
    ) -> tuple[Tensor, KV]:
        dtype = span.tables.dtype
        attended, kv = self.attention(self.attention_norm(x, dtype), span, reads, adapter)
        x = x + attended
        return x + self.mlp(self.mlp_norm(x, dtype)), kv  # (T, D)
