"""Every kind of model that the configuration knows, small."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from mor.config import ModelConfig, RouterConfig, SizeConfig
from mor.model.transformer import Transformer

SIZE = SizeConfig("tiny", n_layers=8, d_model=32, n_heads=4, n_kv_heads=2, d_head=8, d_ff=48)
VOCAB = 40


def recursive(**changes: Any) -> ModelConfig:
    base = ModelConfig("r", architecture="recursive", n_recursions=3, init_std=0.2)
    return dataclasses.replace(base, **changes)


def expert(router: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    settings = {"type": "expert", "alpha": 0.5, "aux_coeff": 0.3} | (router or {})
    return recursive(architecture="mor", router=RouterConfig(**settings), **changes)


def token(router: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    settings = {"type": "token", "activation": "softmax", "alpha": 1.0} | (router or {})
    return recursive(architecture="mor", router=RouterConfig(**settings), **changes)


UNROUTED = {
    "vanilla": ModelConfig("v", init_std=0.2),
    **{
        f"recursive-{sharing}-{kv}": recursive(sharing=sharing, kv=kv)
        for sharing in ("cycle", "sequence", "middle_cycle", "middle_sequence")
        for kv in ("recursion", "shared")
    },
    "recursive-2": recursive(n_recursions=2, sharing="cycle"),
}
EXPERT = {
    "expert": expert(),
    "expert-shared": expert(kv="shared"),
    "expert-cycle-2": expert(n_recursions=2, sharing="cycle"),
    "expert-sequence-shared": expert(n_recursions=2, sharing="sequence", kv="shared"),
    "expert-4": expert(n_recursions=4, sharing="cycle"),
    "expert-mlp-tanh": expert({"network": "mlp", "activation": "tanh"}),
    "expert-aux-router": expert({"sampling": "aux_router", "z_coeff": 0.1}),
    "expert-capacity": expert(capacity=(1.0, 0.4, 0.4)),
    "expert-first-too": expert(capacity=(0.8, 0.5, 0.3)),
    "expert-first-too-shared": expert(capacity=(0.8, 0.5, 0.3), kv="shared"),
}
TOKEN = {
    "token": token({"z_coeff": 0.1}),
    "token-shared": token(kv="shared"),
    "token-4": token(n_recursions=4, sharing="cycle"),
    "token-sigmoid-mlp": token({"activation": "sigmoid", "network": "mlp", "alpha": 0.3}),
    "token-loss-free": token({"balancing": "loss_free"}, n_recursions=2, sharing="cycle"),
}
ROUTED = EXPERT | TOKEN
ALL = UNROUTED | ROUTED


def build(model: ModelConfig, seed: int = 0) -> Transformer:
    return Transformer(model, SIZE, VOCAB, seed)


def draw(batch: int, length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and targets; the last target of each sequence is ignored."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, VOCAB, (batch, length + 1), generator=generator)
    targets = rows[:, 1:].clone()
    targets[:, -1] = -100
    return rows[:, :-1], targets
