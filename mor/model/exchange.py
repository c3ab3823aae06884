"""Published weights: Llama checkpoints in and out, and our own form. Notable about it:

- safetensors and JSON only; nothing is unpickled;
- vanilla models are written as `LlamaForCausalLM`, which `transformers` loads with equal logits;
  what transformers has no class for is written under our names, with the configuration beside it;
- what a Llama configuration may say and we do not do (biases, scaled rotary embeddings, an untied
  head) is refused by name, never left out;
- safetensors is imported where it is used: a model can be trained without it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from mor.config import ModelConfig, SizeConfig, UserError, from_dict, to_dict
from mor.model.transformer import Transformer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LLAMA, OWN = "config.json", "mor.json"  # the configuration of either form
PIECES = {
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.o": "self_attn.o_proj",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
}


class ExchangeError(UserError):
    """Weights that cannot be read or written: the message says which and why."""


def save(model: Transformer, folder: Path) -> None:
    """Write a model: as a Llama if it is one, else under our names."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if is_llama(model.model):
        config, file = llama_config(model), LLAMA
        weights = {llama_name(name): weight for name, weight in weights.items()}
    else:
        file = OWN
        config = {
            "model": to_dict(model.model),
            "size": to_dict(model.size),
            "vocab_size": model.embed.num_embeddings,
            "separator": model.separator,
        }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / file).write_text(json.dumps(config, indent=2) + "\n")


def load(folder: Path) -> Transformer:
    """Read a model of either form, in float32. Raises ExchangeError."""
    if (folder / OWN).exists():
        given = json.loads((folder / OWN).read_text())
        model = Transformer(
            from_dict(ModelConfig, given["model"]),
            from_dict(SizeConfig, given["size"]),
            given["vocab_size"],
            separator=given["separator"],
        )
        model.load_state_dict(read_weights(folder))
        return model
    if not (folder / LLAMA).exists():
        raise ExchangeError(f"{folder}: holds neither {LLAMA} nor {OWN}; name a model's folder")
    return _load_llama(folder)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, of one file or several, in float32."""
    from safetensors.torch import load_file

    files = [WEIGHTS]
    if (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text())
        files = sorted(set(index["weight_map"].values()))
    missing = [name for name in files if not (folder / name).exists()]
    if missing:
        raise ExchangeError(f"{folder}: {missing[0]} is missing; download the whole model")
    tensors: dict[str, Tensor] = {}
    for name in files:
        tensors |= load_file(folder / name)
    return {name: tensor.float() for name, tensor in tensors.items()}


# -- Llama -------------------------------------------------------------------------------------


def is_llama(model: ModelConfig) -> bool:
    """Whether transformers' LlamaForCausalLM is this model."""
    separate = model.kv in ("recursion", "shared")  # a vanilla model has one recursion
    return model.architecture == "vanilla" and separate and not model.document_mask


def llama_name(name: str) -> str:
    """Their name of one of our tensors."""
    if not name.startswith("layers."):
        return {"embed.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}[
            name
        ]
    _, layer, piece = name.removesuffix(".weight").split(".", 2)
    return f"model.layers.{layer}.{PIECES[piece]}.weight"


def llama_config(model: Transformer) -> dict[str, Any]:
    size = model.size
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.embed.num_embeddings,
        "hidden_size": size.d_model,
        "intermediate_size": size.d_ff,
        "num_hidden_layers": size.n_layers,
        "num_attention_heads": size.n_heads,
        "num_key_value_heads": size.n_kv_heads,
        "head_dim": size.d_head,
        "hidden_act": "silu",
        "rms_norm_eps": model.model.norm_eps,
        "rope_theta": model.model.rope_theta,
        "initializer_range": model.model.init_std,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float32",
    }


def _load_llama(folder: Path) -> Transformer:
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
    net = Transformer(model, size, given["vocab_size"])
    tensors = read_weights(folder)
    missing = [name for name in map(llama_name, net.state_dict()) if name not in tensors]
    if missing:
        raise ExchangeError(f"{folder}: has no {missing[0]}; this is no Llama's layout")
    net.load_state_dict({name: tensors[llama_name(name)] for name in net.state_dict()})
    return net


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
