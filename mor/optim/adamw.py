"""AdamW as the paper trains (app. B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mor.config import TrainConfig
from mor.optim.state import Optimizer


def adamw(model: nn.Module, train: TrainConfig) -> Optimizer:
    """AdamW for all weights, with weight decay on matrices only."""
    return Optimizer([adamw_of(list(model.parameters()), train)])


def adamw_of(parameters: Sequence[nn.Parameter], train: TrainConfig) -> torch.optim.AdamW:
    """AdamW of some weights; its state exists from the start, at zero."""
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=train.lr, betas=(train.beta1, train.beta2), fused=True)
    for p in parameters:
        optimizer.state[p] = {
            "step": torch.zeros((), dtype=torch.float32, device=p.device),
            "exp_avg": torch.zeros_like(p),
            "exp_avg_sq": torch.zeros_like(p),
        }
    return optimizer
