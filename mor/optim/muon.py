"""Muon (torch's) for the matrices of the layers, AdamW for the rest: embedding, norms, routers,
relaxations. Its steps are scaled to AdamW's root mean square, so that one rate serves both."""

from __future__ import annotations

import torch
from torch import nn

from mor.config import TrainConfig
from mor.optim.adamw import adamw_of
from mor.optim.state import Optimizer


def muon(model: nn.Module, train: TrainConfig) -> Optimizer:
    """Both optimizers; Muon's state exists from the start, at zero."""
    named = dict(model.named_parameters())
    hidden = [p for name, p in named.items() if name.startswith("layers.") and p.dim() == 2]
    chosen = set(hidden)
    first = torch.optim.Muon(
        hidden,
        lr=train.lr if train.muon_lr is None else train.muon_lr,
        weight_decay=train.weight_decay,
        momentum=train.muon_momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    for p in hidden:
        first.state[p] = {"momentum_buffer": torch.zeros_like(p)}
    rest = [p for p in named.values() if p not in chosen]
    return Optimizer([first, adamw_of(rest, train)])
