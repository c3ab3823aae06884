"""Keys and values across depths (paper, appendix): how large, and how alike two depths are.

For models that route nothing: every depth holds every token, so that depths can be compared token
by token. A depth that reads another's keys and values counts as having these.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mor.data.batches import Batches
from mor.model.components import router_of
from mor.model.layers import Attention
from mor.model.transformer import Transformer

TOKENS = 2048  # held-out tokens measured; all depths of all of them are in memory at once


@torch.no_grad()
def kv_statistics(
    model: Transformer, batches: Batches, n_tokens: int, precision: torch.autocast
) -> dict[str, Any]:
    """Mean Euclidean norm at each depth as executed, and mean cosine between any two depths.

    The vector of a token is that of all heads together. Keys are taken after their rotation, which
    changes neither: two depths of one position are rotated alike. Raises ValueError for a routed
    model, whose depths hold different tokens.
    """
    if router_of(model.model).routes:
        raise ValueError("depths of a routed model hold different tokens")
    seen: list[list[tuple[Tensor, Tensor]]] = []
    hooks = [
        module.register_forward_hook(lambda _module, _in, out: seen[-1].append(out[1]))
        for module in model.modules()
        if isinstance(module, Attention)
    ]
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"), precision:
            for rows, _ in batches.validation(min(n_tokens, TOKENS)):
                seen.append([])
                model(torch.from_numpy(rows).to(device), routing="causal", keep_logits=False)
    finally:
        for hook in hooks:
            hook.remove()
        model.train()
    found: dict[str, Any] = {}
    for kind, name in enumerate(("key", "value")):
        depths = [
            torch.cat([batch[depth][kind].flatten(0, 1).flatten(1) for batch in seen])
            for depth in range(len(seen[0]))
        ]
        states = torch.stack(depths).float()  # (depths, tokens, H_kv * Dh)
        norms = states.norm(dim=-1, keepdim=True)
        unit = (states / norms.clamp_min(1e-12)).flatten(1)
        found[f"{name}_norm"] = _digits(norms.mean(dim=(1, 2)))
        found[f"{name}_cosine"] = [_digits(row) for row in (unit @ unit.T) / states.shape[1]]
    return found


def _digits(values: Tensor) -> list[float]:
    """Five significant digits: a model of 32 depths has two thousand of these numbers."""
    return [float(f"{value:.5g}") for value in values.tolist()]
