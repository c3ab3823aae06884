"""The same models written plainly: a loop over the batch, dense masks, everything spelled out.

Reads the weights of a Transformer, calls none of its methods and none of `mor.model`'s functions
but the layout, so that the fast paths are compared with something else.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mor.model.transformer import Transformer

Memory = list[tuple[Tensor, Tensor, Tensor]]  # keys, values and positions per depth


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def turn(x: Tensor, positions: Tensor, theta: float) -> Tensor:  # (n, H, Dh)
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half) / half)
    angle = positions[:, None, None] * frequency
    a, b = x[..., :half], x[..., half:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Naive:
    def __init__(self, model: Transformer, causal: bool = False) -> None:
        self.m, self.causal = model, causal
        self.losses: dict[str, Any] = {}
        self.taken: list[list[Tensor]] = []  # of each sequence, each recursion's positions
        self.scores: list[Tensor] = []
        self.depths: list[Tensor] = []

    def __call__(self, tokens: Tensor) -> Tensor:
        return torch.stack([self.sequence(row) for row in tokens])

    def sequence(self, row: Tensor) -> Tensor:
        positions = torch.arange(len(row))
        x = self.m.embed.weight[row]
        for i in self.m.layout.prologue:
            x = self.layer(i, x, positions)[0]
        travel = {"none": self.together, "expert": self.expert, "token": self.token}
        self.taken.append([])
        self.memory: Memory | None = None
        x = travel[self.m.model.router.type](x, positions)
        for i in self.m.layout.epilogue:
            x = self.layer(i, x, positions)[0]
        return norm(x, self.m.norm.weight, self.m.model.norm_eps) @ self.m.embed.weight.T

    def layer(self, i: int, x: Tensor, positions: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        layer, config, size = self.m.layers[i], self.m.model, self.m.size
        attention, heads, n = layer.attention, (-1, size.d_head), len(x)
        h = norm(x, layer.attention_norm.weight, config.norm_eps)
        q = turn((h @ attention.q.weight.T).view(n, *heads), positions, config.rope_theta)
        if memory is None:
            k = turn((h @ attention.k.weight.T).view(n, *heads), positions, config.rope_theta)
            memory = k, (h @ attention.v.weight.T).view(n, *heads), positions
        k, v, places = memory
        group = size.n_heads // size.n_kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) / size.d_head**0.5
        scores = scores.masked_fill(positions[:, None] < places[None, :], -torch.inf)
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(n, -1)
        x = x + mixed @ attention.o.weight.T
        h = norm(x, layer.mlp_norm.weight, config.norm_eps)
        mlp = layer.mlp
        up = F.silu(h @ mlp.gate.weight.T) * (h @ mlp.up.weight.T)
        return x + up @ mlp.down.weight.T, memory

    def block(self, r: int, x: Tensor, positions: Tensor) -> Tensor:
        self.taken[-1].append(positions)
        kept, depths = [], self.m.layout.recursions[r]
        for j, i in enumerate(depths):
            x, memory = self.layer(i, x, positions, self.memory[j] if self.memory else None)
            kept.append(memory)
        if self.m.model.kv == "shared" and self.memory is None:
            self.memory = kept
        return x

    def route(self, router: Any, x: Tensor) -> Tensor:
        if self.m.model.router.network == "linear":
            return x @ router.weight.T
        return F.gelu(x @ router.hidden.weight.T) @ router.out.weight.T

    def together(self, x: Tensor, positions: Tensor) -> Tensor:
        for r in range(self.m.model.n_recursions):
            x = self.block(r, x, positions)
        return x

    def expert(self, x: Tensor, positions: Tensor) -> Tensor:
        config, length, active = self.m.model.router, len(x), positions
        for r, capacity in enumerate(self.m.capacities):
            logits = rule = self.route(self.m.routers[r], x[active])[:, 0]
            if config.sampling == "aux_router":
                rule = self.route(self.m.aux_routers[r], x[active].detach())[:, 0]
            k = max(1, int(capacity * length))
            mask = torch.zeros(len(active), dtype=torch.bool)
            mask[logits.topk(k).indices if not self.causal else []] = True
            if self.causal:
                mask = rule > 0 if capacity < 1 else ~mask
            probability = rule.sigmoid()
            picked = torch.where(mask, probability, 1 - probability)
            self.add("sampling_loss", r, -picked.log().mean())
            self.add("router_z_loss", r, logits.pow(2).mean())
            squash = torch.sigmoid if config.activation == "sigmoid" else torch.tanh
            gate = config.alpha * squash(logits[mask])[:, None]
            active = active[mask]
            if len(active) == 0:
                return x
            new = x.clone()
            new[active] = x[active] + gate * self.block(r, x[active], active)
            x = new
        return x

    def token(self, x: Tensor, positions: Tensor) -> Tensor:
        config = self.m.model.router
        logits = self.route(self.m.routers[0], x)
        scores = logits.softmax(-1) if config.activation == "softmax" else logits.sigmoid()
        scores = config.alpha * scores
        bias = 0 if self.m.balance_bias is None else self.m.balance_bias
        depth = (scores + bias).argmax(-1)
        self.scores.append(scores)
        self.depths.append(depth)
        self.add("router_z_loss", 0, logits.exp().sum(-1).log().pow(2).mean())
        state, out = x, x
        for r in range(self.m.model.n_recursions):
            active = positions[depth >= r]
            if len(active) == 0:
                break
            new = state.clone()
            new[active] = self.block(r, state[active], active)
            last = (depth == r)[:, None]
            out = torch.where(last, x + scores[:, r : r + 1] * new, out)
            state = new
        return out

    def add(self, name: str, r: int, value: Tensor) -> None:
        self.losses.setdefault(name, {}).setdefault(r, []).append(value)

    def loss(self, name: str) -> Tensor:
        """Mean over the sequences (all as long), summed over recursions."""
        if name == "balancing_loss":
            n = self.m.model.n_recursions
            share = torch.cat(self.depths).bincount(minlength=n) / sum(map(len, self.depths))
            return n * (torch.cat(self.scores).mean(0) * share).sum()
        return sum(torch.stack(values).mean() for values in self.losses[name].values())
