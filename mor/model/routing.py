"""Routers, what they choose, and their losses (paper sec. 2.2.1). Notable about it:

- routers work in float32, also under autocast: in bfloat16 half of a sequence's scores would tie;
- choices carry no gradient; it flows through the gates and through the auxiliary losses;
- all losses are means over the tokens that the router saw: for expert choice the tokens still
  active, summed over recursions (recursion 1, which takes every token, included);
- the loss-free bias shifts the selection only, never the gate.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mor.config import RouterConfig
from mor.model.layers import Linear


class LinearRouter(Linear):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight.float())  # (T, out)


class MLPRouter(nn.Module):
    """Linear(d, 2d), GELU, Linear(2d, out)."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.hidden = Linear(d_in, 2 * d_in)
        self.out = Linear(2 * d_in, d_out)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            hidden = F.gelu(F.linear(x.float(), self.hidden.weight.float()))
            return F.linear(hidden, self.out.weight.float())  # (T, out)


def build_router(router: RouterConfig, d_model: int, d_out: int) -> nn.Module:
    return {"linear": LinearRouter, "mlp": MLPRouter}[router.network](d_model, d_out)


# -- expert choice: a recursion chooses its tokens ---------------------------------------------


def expert_gate(router: RouterConfig, logits: Tensor) -> Tensor:
    """alpha G(logit), G sigmoid or tanh."""
    squash = torch.sigmoid if router.activation == "sigmoid" else torch.tanh
    return router.alpha * squash(logits)


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
    gate: Tensor  # (T, 1), the score of the depth taken


def choose_depth(router: RouterConfig, logits: Tensor, bias: Tensor | None) -> DepthChoice:
    squashed = logits.softmax(-1) if router.activation == "softmax" else logits.sigmoid()
    scores = router.alpha * squashed
    ranked = scores.detach() if bias is None else scores.detach() + bias
    depth = ranked.argmax(-1, keepdim=True)  # (T, 1)
    return DepthChoice(logits, scores, depth.squeeze(1), scores.gather(1, depth))


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
