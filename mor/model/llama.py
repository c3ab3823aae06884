"""What a folder of published weights holds, from its JSON alone: Llama's form or our own. No torch.

What a Llama configuration may say and we do not do (biases, scaled rotary embeddings, an untied
head) is refused by name, never left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mor.config import ModelConfig, SizeConfig, UserError, from_dict

LLAMA, OWN = "config.json", "mor.json"  # the configuration of either form


class ExchangeError(UserError):
    """Weights that cannot be read or written: the message says which and why."""


@dataclass(frozen=True)
class Shape:
    """All that a model is built from but its weights."""

    model: ModelConfig
    size: SizeConfig
    vocab_size: int
    separator: int | None = None  # token that closes a document


def read_shape(folder: Path) -> Shape:
    """What stands in a folder of published weights. Raises ExchangeError."""
    if (folder / OWN).exists():
        given = json.loads((folder / OWN).read_text())
        return Shape(
            from_dict(ModelConfig, given["model"]),
            from_dict(SizeConfig, given["size"]),
            given["vocab_size"],
            given["separator"],
        )
    if not (folder / LLAMA).exists():
        raise ExchangeError(f"{folder}: holds neither {LLAMA} nor {OWN}; name a model's folder")
    return _read_llama(folder)


def _read_llama(folder: Path) -> Shape:
    given = json.loads((folder / LLAMA).read_text())
    _refuse_other_llamas(folder, given)
    heads = given["num_attention_heads"]
    size = SizeConfig(
        name=folder.name,
        n_layers=given["num_hidden_layers"],
        d_model=given["hidden_size"],
        n_heads=heads,
        n_kv_heads=given.get("num_key_value_heads") or heads,
        d_head=given.get("head_dim") or given["hidden_size"] // heads,
        d_ff=given["intermediate_size"],
    )
    rope = given.get("rope_parameters") or {}
    model = ModelConfig(
        name="vanilla",
        rope_theta=float(given.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        norm_eps=given.get("rms_norm_eps", 1e-6),
        init_std=given.get("initializer_range", 0.02),
    )
    return Shape(model, size, given["vocab_size"])


def _refuse_other_llamas(folder: Path, given: dict[str, Any]) -> None:
    """Refuse what would load and compute something else."""
    rope = given.get("rope_scaling") or given.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    wanted = {
        "model_type": (given.get("model_type"), "llama"),
        "tie_word_embeddings": (bool(given.get("tie_word_embeddings", False)), True),
        "hidden_act": (given.get("hidden_act", "silu"), "silu"),
        "attention_bias": (bool(given.get("attention_bias", False)), False),
        "mlp_bias": (bool(given.get("mlp_bias", False)), False),
        "rope_scaling": (kind, "default"),
    }
    for name, (value, ours) in wanted.items():
        if value != ours:
            raise ExchangeError(f"{folder / LLAMA}: {name}={value}; only {ours} can be read")
