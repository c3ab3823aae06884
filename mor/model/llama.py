"""What a folder of published weights holds, from its JSON alone: Llama's form or our own. No torch.

What a Llama configuration may say and we do not do (biases, scaled rotary embeddings, an untied
head) is refused by name, never left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mor.config import ConfigError, ModelConfig, SizeConfig, UserError, from_dict

LLAMA, OWN = "config.json", "mor.json"  # the configuration of either form
HF_TYPE = "mor_isoflop"  # model_type of what transformers loads after `import mor.hf`
HF_PREFIX = "transformer."  # of the names of its weights


class ExchangeError(UserError):
    """Weights that cannot be read or written: the message says which and why."""


@dataclass(frozen=True)
class Shape:
    """All that a model is built from but its weights."""

    model: ModelConfig
    size: SizeConfig
    vocab_size: int
    separator: int | None = None  # token that closes a document
    seed: int = 0  # that a random router draws by


def read_shape(folder: Path) -> Shape:
    """What stands in a folder of published weights. Raises ExchangeError."""
    if (folder / OWN).exists():
        return _own(folder / OWN)
    if not (folder / LLAMA).exists():
        raise ExchangeError(f"{folder}: holds neither {LLAMA} nor {OWN}; name a model's folder")
    if is_hf(folder):
        return _own(folder / LLAMA)
    return _read_llama(folder)


def is_hf(folder: Path) -> bool:
    """Whether a folder is one of ours for transformers."""
    return (folder / LLAMA).exists() and read_json(folder / LLAMA).get("model_type") == HF_TYPE


def shape_of(given: dict[str, Any]) -> Shape:
    """A shape from our own form of it. Raises ConfigError."""
    return Shape(
        from_dict(ModelConfig, given["model"]),
        from_dict(SizeConfig, given["size"]),
        given["vocab_size"],
        given["separator"],
        given.get("seed", 0),
    )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object of a folder of weights. Raises ExchangeError."""
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ExchangeError(f"{file}: cannot be read ({error}); write the folder again") from None
    if not isinstance(values, dict):
        raise ExchangeError(f"{file}: holds no JSON object; write the folder again")
    return values


def _own(file: Path) -> Shape:
    given = read_json(file)
    missing = {"model", "size", "vocab_size", "separator"} - given.keys()
    if missing:
        raise ExchangeError(f"{file}: has no {sorted(missing)[0]}; write the folder again")
    try:
        return shape_of(given)
    except ConfigError as mistake:  # of a newer version, or damaged
        raise ExchangeError(f"{file}: {mistake}") from None


def _read_llama(folder: Path) -> Shape:
    given = read_json(folder / LLAMA)
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
