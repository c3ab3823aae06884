"""The same models written plainly: a loop over the batch, dense masks, everything spelled out.

Reads the weights of a Transformer, calls none of its methods and none of `mor.model`'s functions
but the layout and a random router's hash, so that the fast paths are compared with something else.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mor.model.routers.networks import random_scores
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


def relaxed(weight: Tensor, own: Any, name: str) -> Tensor:
    """A weight with a recursion's own low-rank change."""
    if not hasattr(own, name):
        return weight
    change = getattr(own, name)
    changed = weight + change.b.weight @ change.a.weight
    if not hasattr(change, "magnitude"):
        return changed
    return change.magnitude[:, None] * changed / changed.detach().norm(dim=1, keepdim=True)


def overwritten(shared: Any, own: Any) -> Any:
    """Shared keys and values, a recursion's own in their place where it has some."""
    places = shared[2].tolist()
    at = [places.index(p) for p in own[2].tolist()]
    k, v = shared[0].clone(), shared[1].clone()
    k[at], v[at] = own[0], own[1]
    return k, v, shared[2]


class Naive:
    def __init__(self, model: Transformer, causal: bool = False, step: int | None = None) -> None:
        self.m, self.causal, self.step = model, causal, step
        self.losses: dict[str, Any] = {}
        self.taken: list[list[Tensor]] = []  # of each sequence, each recursion's positions
        self.scores: list[Tensor] = []
        self.depths: list[Tensor] = []

    def __call__(self, tokens: Tensor) -> Tensor:
        return torch.stack([self.sequence(row) for row in tokens])

    def sequence(self, row: Tensor) -> Tensor:
        positions = torch.arange(len(row))
        ends = row == (-1 if self.m.separator is None else self.m.separator)
        self.document = torch.tensor([int(ends[:t].sum()) for t in range(len(row))])
        x = self.m.embed.weight[row]
        for i in self.m.layout.prologue:
            x = self.layer(i, x, positions)[0]
        travel = {"none": self.together, "expert": self.expert, "token": self.token}
        self.taken.append([])
        self.memory: Memory | None = None
        self.all: list[Any] = []
        x = travel[self.m.model.router.type](x, positions)
        for i in self.m.layout.epilogue:
            x = self.layer(i, x, positions)[0]
        return norm(x, self.m.norm.weight, self.m.model.norm_eps) @ self.m.embed.weight.T

    def layer(
        self, i: int, x: Tensor, positions: Tensor, memory: Any = None, own: Any = None
    ) -> tuple[Tensor, Any]:
        layer, config, size = self.m.layers[i], self.m.model, self.m.size
        shared = memory
        attention, heads, n = layer.attention, (-1, size.d_head), len(x)
        h = norm(x, layer.attention_norm.weight, config.norm_eps)
        wq = relaxed(attention.q.weight, own, "q_change")
        q = turn((h @ wq.T).view(n, *heads), positions, config.rope_theta)
        if memory is None or config.kv == "hybrid":
            k = turn((h @ attention.k.weight.T).view(n, *heads), positions, config.rope_theta)
            wv = relaxed(attention.v.weight, own, "v_change")
            memory = k, (h @ wv.T).view(n, *heads), positions
        if shared is not None and config.kv == "hybrid":
            memory = overwritten(shared, memory)
        k, v, places = memory
        group = size.n_heads // size.n_kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) / size.d_head**0.5
        scores = scores.masked_fill(positions[:, None] < places[None, :], -torch.inf)
        other = self.document[positions][:, None] != self.document[places][None, :]
        scores = scores.masked_fill(other, -torch.inf)
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
        if hasattr(own, "gate"):
            k, v = own.keys.repeat_interleave(group, 0), own.values.repeat_interleave(group, 0)
            scores = torch.einsum("qhd,hkd->hqk", q, k) / size.d_head**0.5
            mixed = mixed + own.gate * torch.einsum("hqk,hkd->qhd", scores.softmax(-1), v)
        mixed = mixed.reshape(n, -1)
        x = x + mixed @ attention.o.weight.T
        h = norm(x, layer.mlp_norm.weight, config.norm_eps)
        mlp = layer.mlp
        up = F.silu(h @ mlp.gate.weight.T) * (h @ mlp.up.weight.T)
        return x + up @ mlp.down.weight.T, memory

    def block(self, r: int, x: Tensor, positions: Tensor) -> Tensor:
        self.taken[-1].append(positions)
        kept, depths, config = [], self.m.layout.recursions[r], self.m.model
        vectors, adapters = self.m.relaxation.vectors, self.m.relaxation.adapters
        if config.relaxation.type == "encoding":
            x = x + vectors.of[r]
        for j, i in enumerate(depths):
            memory = self.memory[j] if self.memory else None
            if config.kv in ("cycle", "sequence", "middle_cycle"):
                memory = self.earlier(len(self.all))
            x, memory = self.layer(i, x, positions, memory, adapters[r][j] if adapters else None)
            kept.append(memory)
            self.all.append(memory)
        if config.kv in ("shared", "hybrid") and self.memory is None:
            self.memory = kept
        return x * vectors.of[r] if config.relaxation.type == "scaling" else x

    def earlier(self, depth: int) -> Any:
        """What a depth of a reusing model reads, by cases."""
        kv, share = self.m.model.kv, self.m.model.kv_share
        n = sum(map(len, self.m.layout.recursions))
        if kv == "sequence":
            return self.all[depth - 1] if depth % share else None
        edge = 1 if kv == "middle_cycle" else 0
        period = -(-(n - 2 * edge) // share)
        if depth - edge < period or (edge and depth == n - 1):
            return None
        return self.all[depth - period]

    def route(self, router: Any, x: Tensor) -> Tensor:
        if self.m.model.router.network == "linear":
            return x @ router.weight.T
        return F.gelu(x @ router.hidden.weight.T) @ router.out.weight.T

    def random(self, r: int, positions: Tensor, count: int = 1) -> Tensor:
        """The scores themselves are what a random router is: taken as they are."""
        return random_scores(positions, self.m.seed, self.step or 0, r, count)

    def shares(self) -> list[float]:
        """Capacities at this step, a cosine from 1 to the target."""
        n, config = self.m.model.n_recursions, self.m.model
        target = config.capacity or [(n - r) / n for r in range(n)]
        steps = config.router.capacity_warmup_steps
        if self.step is None or not steps:
            return list(target)
        done = min(1.0, (self.step + 1) / steps)
        extra = (1 + math.cos(math.pi * done)) / 2
        return [c + (1 - c) * extra for c in target]

    def together(self, x: Tensor, positions: Tensor) -> Tensor:
        for r in range(self.m.model.n_recursions):
            x = self.block(r, x, positions)
        return x

    def expert(self, x: Tensor, positions: Tensor) -> Tensor:
        config, length, active = self.m.model.router, len(x), positions
        shares = self.shares()
        for r, capacity in enumerate(shares):
            if config.network == "random":
                logits = self.random(r, active)[:, 0]
                rule = logits - (1 - capacity / (shares[r - 1] if r else 1))
            else:
                logits = rule = self.route(self.m.routers[r], x[active] / config.temperature)[:, 0]
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
            squash = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "none": lambda z: z}
            gate = config.alpha * squash[config.activation](logits[mask])[:, None]
            gate = gate if config.gating == "weighted" else 1.0
            active = active[mask]
            if len(active) == 0:
                return x
            new = x.clone()
            new[active] = x[active] + gate * self.block(r, x[active], active)
            x = new
        return x

    def token(self, x: Tensor, positions: Tensor) -> Tensor:
        config = self.m.model.router
        if config.network == "random":
            logits = scores = self.random(0, positions, self.m.model.n_recursions)
        else:
            logits = self.route(self.m.routers[0], x / config.temperature)
            scores = logits.softmax(-1) if config.activation == "softmax" else logits.sigmoid()
        scores = config.alpha * scores
        bias = 0 if getattr(self.m, "balance_bias", None) is None else self.m.balance_bias
        depth = (scores + bias).argmax(-1)
        if self.step is not None and self.step + 1 < config.balance_warmup_steps:
            depth = torch.full_like(depth, self.m.model.n_recursions - 1)
        gates = scores if config.gating == "weighted" else torch.ones_like(scores)
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
            out = torch.where(last, x + gates[:, r : r + 1] * new, out)
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
