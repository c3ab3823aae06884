"""Every kind of model that the configuration knows, small."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from mor.config import ModelConfig, RelaxationConfig, RouterConfig, SizeConfig
from mor.model.transformer import Transformer

SIZE = SizeConfig("tiny", n_layers=8, d_model=32, n_heads=4, n_kv_heads=2, d_head=8, d_ff=48)
VOCAB = 40
SEPARATOR = 7  # of documents, where they are told apart


def recursive(**changes: Any) -> ModelConfig:
    base = ModelConfig("r", architecture="recursive", n_recursions=3, init_std=0.2)
    return dataclasses.replace(base, **changes)


def expert(router: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    settings = {"type": "expert", "alpha": 0.5, "aux_coeff": 0.3} | (router or {})
    return recursive(architecture="mor", router=RouterConfig(**settings), **changes)


def token(router: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    settings = {"type": "token", "activation": "softmax", "alpha": 1.0} | (router or {})
    return recursive(architecture="mor", router=RouterConfig(**settings), **changes)


RELAXATIONS = ("encoding", "scaling", "lora", "dora", "prompt")


def relax(kind: str) -> RelaxationConfig:
    return RelaxationConfig(kind, rank=3, prompt_length=5)


RANDOM = {"network": "random", "activation": "none"}
UNROUTED = {
    "vanilla": ModelConfig("v", init_std=0.2),
    **{
        f"recursive-{sharing}-{kv}": recursive(sharing=sharing, kv=kv)
        for sharing in ("cycle", "sequence", "middle_cycle", "middle_sequence")
        for kv in ("recursion", "shared")
        if kv == "recursion" or not sharing.endswith("sequence")
    },
    **{
        f"vanilla-{kv}-{share}": ModelConfig("v", init_std=0.2, kv=kv, kv_share=share)
        for kv, share in (("cycle", 2), ("sequence", 2), ("sequence", 3), ("middle_cycle", 3))
    },
    "recursive-sequence-reused": recursive(sharing="sequence", kv="sequence", kv_share=3),
    "recursive-straddling": recursive(sharing="middle_sequence", kv="sequence", kv_share=4),
    **{f"recursive-{kind}": recursive(relaxation=relax(kind)) for kind in RELAXATIONS},
    "recursive-shared-lora": recursive(kv="shared", relaxation=relax("lora")),
    "recursive-documents": recursive(document_mask=True),
    "vanilla-cycle-documents": ModelConfig("v", init_std=0.2, kv="cycle", document_mask=True),
    "recursive-2": recursive(n_recursions=2, sharing="cycle"),
}
EXPERT = {
    "expert": expert(),
    "expert-shared": expert(kv="shared"),
    "expert-cycle-2": expert(n_recursions=2, sharing="cycle"),
    "expert-sequence": expert(n_recursions=2, sharing="sequence"),
    "expert-4": expert(n_recursions=4, sharing="cycle"),
    "expert-mlp-tanh": expert({"network": "mlp", "activation": "tanh"}),
    "expert-aux-router": expert({"sampling": "aux_router", "z_coeff": 0.1}),
    "expert-hybrid": expert(kv="hybrid"),
    "expert-hybrid-first-too": expert(kv="hybrid", capacity=(0.8, 0.5, 0.3)),
    "expert-none": expert({"activation": "none"}),
    "expert-plain": expert({"gating": "plain"}),
    "expert-plain-first-too": expert({"gating": "plain"}, capacity=(0.8, 0.5, 0.3)),
    "expert-wide-hot": expert({"network": "wide_mlp", "temperature": 3.0, "z_coeff": 0.1}),
    "expert-hot-aux": expert({"sampling": "aux_router", "temperature": 0.5}),
    "expert-random": expert(RANDOM),
    "expert-random-hybrid": expert(RANDOM, kv="hybrid", capacity=(0.8, 0.5, 0.3)),
    "expert-warmup": expert({"capacity_warmup_steps": 10}),
    "expert-shared-dora": expert(kv="shared", relaxation=relax("dora")),
    "expert-hybrid-lora": expert(kv="hybrid", relaxation=relax("lora")),
    "expert-encoding": expert(relaxation=relax("encoding")),
    "expert-prompt": expert(relaxation=relax("prompt")),
    "expert-documents": expert(document_mask=True),
    "expert-shared-documents": expert(document_mask=True, kv="shared"),
    "expert-capacity": expert(capacity=(1.0, 0.4, 0.4)),
    "expert-first-too": expert(capacity=(0.8, 0.5, 0.3)),
    "expert-first-too-shared": expert(capacity=(0.8, 0.5, 0.3), kv="shared"),
}
TOKEN = {
    "token": token({"z_coeff": 0.1}),
    "token-shared": token(kv="shared"),
    "token-4": token(n_recursions=4, sharing="cycle"),
    "token-sigmoid-mlp": token({"activation": "sigmoid", "network": "mlp", "alpha": 0.3}),
    "token-plain": token({"gating": "plain"}),
    "token-random": token(RANDOM | {"alpha": 0.5}),
    "token-hot": token({"temperature": 2.0}),
    "token-warmup": token({"balance_warmup_steps": 5}),
    "token-lora": token(relaxation=relax("lora")),
    "token-prompt": token(relaxation=relax("prompt")),
    "token-scaling": token(relaxation=relax("scaling")),
    "token-documents": token(document_mask=True),
    "token-shared-documents": token(document_mask=True, kv="shared"),
    "token-loss-free": token({"balancing": "loss_free"}, n_recursions=2, sharing="cycle"),
}
ROUTED = EXPERT | TOKEN
ALL = UNROUTED | ROUTED


def build(model: ModelConfig, seed: int = 0) -> Transformer:
    """The model, its relaxation moved away from where it changes nothing."""
    built = Transformer(model, SIZE, VOCAB, seed, separator=SEPARATOR)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in built.relaxation.parameters():
            weight += 0.2 * torch.empty(weight.shape).normal_(generator=generator)
    return built.eval()  # nothing differs in training but that a step is asked for


def draw(batch: int, length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and targets; the last target of each sequence is ignored."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, VOCAB, (batch, length + 1), generator=generator)
    targets = rows[:, 1:].clone()
    targets[:, -1] = -100
    return rows[:, :-1], targets
