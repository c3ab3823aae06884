"""Published weights: Llama checkpoints in and out, and our own form. Design notes:

- safetensors and JSON only; nothing is unpickled;
- vanilla models are written as `LlamaForCausalLM`, which `transformers` loads with equal logits;
  what transformers has no class for is written under our names, with the configuration beside it;
- what stands in a folder is read from its JSON first, without torch (`mor.model.llama`);
- safetensors is imported where it is used: a model can be trained without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from mor.config import ModelConfig, to_dict
from mor.model.checks import has_all_weights
from mor.model.llama import (
    HF_PREFIX,
    HF_TYPE,
    LLAMA,
    OWN,
    ExchangeError,
    is_hf,
    read_json,
    read_shape,
)
from mor.model.transformer import Transformer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
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


def save(model: Transformer, folder: Path) -> None:
    """Write a model: as a Llama if it is one, else under our names."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if is_llama(model.model):
        config, file = llama_config(model), LLAMA
        weights = {llama_name(name): weight for name, weight in weights.items()}
    else:
        file, config = OWN, own_config(model)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / file).write_text(json.dumps(config, indent=2) + "\n")


def save_for_transformers(model: Transformer, folder: Path, context: int | None) -> None:
    """Write a model that transformers loads: as a Llama if it is one, else for `mor.hf`.

    `context`: tokens that it was trained on at a time, where that is known."""
    if is_llama(model.model):
        save(model, folder)
        said = {"max_position_embeddings": context} if context else {}
        config = {**read_json(folder / LLAMA), **said}
    else:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = model.state_dict().items()
        own = {HF_PREFIX + k: v.detach().cpu().contiguous() for k, v in weights}
        save_file(own, folder / WEIGHTS, metadata={"format": "pt"})
        config = {
            "architectures": ["MorForCausalLM"],
            "model_type": HF_TYPE,
            **own_config(model),
            "max_position_embeddings": context,
            "dtype": "float32",
        }
    (folder / LLAMA).write_text(json.dumps(config, indent=2) + "\n")


def own_config(model: Transformer) -> dict[str, Any]:
    """All that a model is built from but its weights (`mor.model.llama.shape_of`)."""
    return {
        "model": to_dict(model.model),
        "size": to_dict(model.size),
        "vocab_size": model.embed.num_embeddings,
        "separator": model.separator,
        **({"seed": model.seed} if model.seed else {}),
    }


def load(folder: Path) -> Transformer:
    """Read a model of any form, in float32. Raises ExchangeError."""
    shape = read_shape(folder)
    model = Transformer(
        shape.model, shape.size, shape.vocab_size, shape.seed, separator=shape.separator
    )
    tensors = read_weights(folder)
    name_of = _name_in(folder)
    wanted = {name: name_of(name) for name in model.state_dict()}
    missing = next((theirs for theirs in wanted.values() if theirs not in tensors), None)
    if missing:
        raise ExchangeError(f"{folder}: has no {missing}; its weights are not of its configuration")
    for name, own in model.state_dict().items():
        found = tensors[wanted[name]].shape
        if found != own.shape:
            raise ExchangeError(
                f"{folder}: {wanted[name]} has shape {tuple(found)} and its configuration says "
                f"{tuple(own.shape)}; name a whole folder"
            )
    model.load_state_dict({name: tensors[theirs] for name, theirs in wanted.items()})
    return model


def _name_in(folder: Path) -> Callable[[str], str]:
    """How a folder calls our tensors."""
    if (folder / OWN).exists():
        return str
    return (lambda name: HF_PREFIX + name) if is_hf(folder) else llama_name


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, of one file or several, in float32. Raises ExchangeError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = [WEIGHTS]
    if (folder / INDEX).exists():
        shards = read_json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ExchangeError(f"{folder / INDEX}: names no file; download the whole model")
        files = sorted({Path(str(name)).name for name in shards.values()})  # beside the index only
    missing = [name for name in files if not (folder / name).exists()]
    if missing:
        raise ExchangeError(f"{folder}: {missing[0]} is missing; download the whole model")
    tensors: dict[str, Tensor] = {}
    for name in files:
        try:
            tensors |= load_file(folder / name)
        except (SafetensorError, OSError) as error:
            raise ExchangeError(
                f"{folder / name}: damaged or cut off ({error}); copy or download it again"
            ) from None
    return {name: tensor.float() for name, tensor in tensors.items()}


# -- Llama -------------------------------------------------------------------------------------


def is_llama(model: ModelConfig) -> bool:
    """Whether transformers' LlamaForCausalLM is this model."""
    return has_all_weights(model) and not model.document_mask


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
