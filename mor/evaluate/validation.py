"""Validation loss on held-out documents, under both routings.

`topk` routes as in training: expert choice then ranks a token against later ones, so the future
leaks into the loss. `causal` uses the rule of inference (the router's threshold or the auxiliary
router), which sees the past only. Fits use the causal one unless told otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mor.data.batches import Batches
from mor.model.transformer import Transformer


@dataclass(frozen=True)
class Validation:
    """Mean negative log-likelihood in nats per token, and the mean depth taken."""

    nll: float
    mean_recursions: float  # recursions per token, averaged over the tokens


@torch.no_grad()
def validate(
    model: Transformer,
    batches: Batches,
    n_tokens: int,
    routing: str,
    precision: torch.autocast,
) -> Validation:
    """Loss over the first `n_tokens` held-out tokens under `routing` (topk | causal)."""
    model.eval()
    device = next(model.parameters()).device
    total, count, routed = 0.0, 0, 0.0
    for tokens, targets in batches.validation(n_tokens):
        with precision:
            out = model(
                torch.from_numpy(tokens).to(device),
                torch.from_numpy(targets).to(device),
                routing=routing,
                keep_logits=False,
            )
        total += out.loss.double().item() * targets.size
        count += targets.size
        routed += sum(out.routed.tokens)
    model.train()
    return Validation(total / count, routed / count)
