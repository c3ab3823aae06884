"""Routers, what they choose, and their losses (paper sec. 2.2.1). Notable about it:

- routers work in float32, also under autocast: in bfloat16 half of a sequence's scores would tie;
- choices carry no gradient; it flows through the gates and through the auxiliary losses;
- all losses are means over the tokens that the router saw: for expert choice the tokens still
  active, summed over recursions (recursion 1, which takes every token, included);
- the loss-free bias shifts the selection only, never the gate;
- a random router has no weights and no state: its score is a hash of seed, step, recursion and
  position, so it needs no generator, is the same for every micro-batch, and sees no future.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mor.config import RouterConfig
from mor.flops import ROUTER_WIDTH
from mor.model.layers import Linear


class LinearRouter(Linear):
    def __init__(self, d_in: int, d_out: int, temperature: float) -> None:
        super().__init__(d_in, d_out)
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight.float()) / self.temperature  # (T, out)


class MLPRouter(nn.Module):
    """Linear(d, w d), GELU, Linear(w d, out): w = 2, and 4 for the wide one (our choice)."""

    def __init__(self, d_in: int, d_out: int, temperature: float, width: int) -> None:
        super().__init__()
        self.hidden = Linear(d_in, width * d_in)
        self.out = Linear(width * d_in, d_out)
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            hidden = F.linear(x.float(), self.hidden.weight.float()) / self.temperature
            return F.linear(F.gelu(hidden), self.out.weight.float())  # (T, out)


def build_router(
    router: RouterConfig, d_model: int, d_out: int, temperature: float = 1.0
) -> nn.Module:
    """A router that learns; it reads states divided by the temperature."""
    if router.network == "linear":
        return LinearRouter(d_model, d_out, temperature)
    return MLPRouter(d_model, d_out, temperature, ROUTER_WIDTH[router.network])


def random_scores(positions: Tensor, seed: int, step: int, first: int, count: int = 1) -> Tensor:
    """Uniform in [0, 1) for `count` recursions from `first` on: two rounds of an integer hash."""
    columns = torch.arange(first, first + count, device=positions.device)
    key = (seed * 1_000_003 + step) * 0x9E3779B1 % (1 << 62)
    x = (positions[:, None] * 64 + columns) + key
    for factor in (0x2545F4914F6CDD1D, 0x1B873593CC9E2D51):
        x = x ^ ((x >> 29) & 0x7FFFFFFFF)
        x = x * factor  # wraps around in int64
    return ((x >> 32) & 0xFFFFFF).float() / (1 << 24)  # (T, count)


# -- expert choice: a recursion chooses its tokens ---------------------------------------------


def expert_gate(router: RouterConfig, logits: Tensor) -> Tensor:
    """alpha G(logit), G sigmoid, tanh or nothing."""
    return router.alpha * expert_scores(router, logits)


def expert_scores(router: RouterConfig, logits: Tensor) -> Tensor:
    """G(logit)."""
    squash = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}.get(router.activation)
    return logits if squash is None else squash(logits)


def top_tokens(logits: Tensor, k: int) -> Tensor:
    """The k highest of each sequence, position-sorted, as indices into the flat tokens."""
    batch, length = logits.shape  # (B, n)
    chosen = logits.detach().topk(k, dim=1, sorted=False).indices.sort(dim=1).values  # (B, k)
    rows = torch.arange(batch, device=logits.device)[:, None] * length
    return (chosen + rows).flatten()  # (B * k,)


def sampling_loss(logits: Tensor, chosen: Tensor | None) -> Tensor:
    """BCE of the inference rule's logits against what top-k chose; None: every token."""  # (T,)
    if chosen is None:
        target = torch.ones_like(logits)
    else:
        target = torch.zeros_like(logits).index_fill_(0, chosen, 1.0)
    return F.binary_cross_entropy_with_logits(logits, target)


def z_loss(logits: Tensor) -> Tensor:
    """Mean squared log-sum-exp over a router's outputs."""  # (T, out)
    return logits.logsumexp(-1).square().mean()


# -- token choice: a token chooses its depth ---------------------------------------------------


class DepthChoice(NamedTuple):
    logits: Tensor  # (T, Nr)
    scores: Tensor  # (T, Nr), alpha G(logits)
    depth: Tensor  # (T,), 0 for one recursion
    gate: Tensor  # (T, 1), the score of the depth taken; 1 under model.router.gating=plain


def choose_depth(
    router: RouterConfig, logits: Tensor, bias: Tensor | None, limit: int | None = None
) -> DepthChoice:
    """The depth of the highest score; at most `limit` recursions."""
    scores = router.alpha * token_scores(router, logits)
    ranked = scores.detach() if bias is None else scores.detach() + bias
    depth = ranked.argmax(-1, keepdim=True)
    return _at_depth(router, logits, scores, depth if limit is None else depth.clamp(max=limit - 1))


def full_depth(router: RouterConfig, logits: Tensor) -> DepthChoice:
    """Balance warm-up: every token takes every recursion."""
    depth = torch.full_like(logits[:, :1], logits.shape[1] - 1, dtype=torch.long)
    return _at_depth(router, logits, router.alpha * token_scores(router, logits), depth)


def token_scores(router: RouterConfig, logits: Tensor) -> Tensor:
    """G(logits): softmax over the depths, sigmoid of each or the logits themselves."""  # (T, Nr)
    if router.activation == "softmax":
        return logits.softmax(-1)
    return logits.sigmoid() if router.activation == "sigmoid" else logits


def _at_depth(router: RouterConfig, logits: Tensor, scores: Tensor, depth: Tensor) -> DepthChoice:
    gate = scores.gather(1, depth)
    if router.gating == "plain":
        gate = torch.ones_like(gate)
    return DepthChoice(logits, scores, depth.squeeze(1), gate)


def depth_load(depth: Tensor, n_recursions: int) -> Tensor:
    """How many tokens chose each depth."""  # (Nr,)
    return torch.bincount(depth, minlength=n_recursions)


def balancing_loss(scores: Tensor, load: Tensor) -> Tensor:
    """Nr sum_i f_i P_i: f the share of tokens that chose depth i, P its mean score."""
    share = load.to(scores) / load.sum()
    return scores.shape[1] * (scores.mean(0) * share).sum()


def balance_step(bias: Tensor, load: Tensor, rate: float) -> Tensor:
    """b_i + u sign(mean load - load_i), in float32."""
    load = load.to(bias)
    return bias + rate * torch.sign(load.mean() - load)
