"""Published weights: Llama checkpoints in and out, and our own form. Design notes:

- safetensors and JSON only; nothing is unpickled;
- vanilla models are written as `LlamaForCausalLM`, which `transformers` loads with equal logits;
  what transformers has no class for is written under our names, with the configuration beside it;
- what stands in a folder is read from its JSON first, without torch (`mor.model.llama`);
- safetensors is imported where it is used: a model can be trained without it.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mor.config import ModelConfig, to_dict
from mor.model.checks import has_all_weights
from mor.model.digests import refuse_changed
from mor.model.llama import (
    EMBEDDING,
    FREQUENCIES,
    HEAD,
    HF_PREFIX,
    HF_TYPE,
    LLAMA,
    OWN,
    Shape,
    is_hf,
    llama_name,
    read_json,
    read_shape,
)
from mor.model.published import AGAIN, WEIGHTS, ExchangeError, account, stored
from mor.model.transformer import Transformer


def save(model: Transformer, folder: Path) -> None:
    """Write a model: as a Llama if it is one, else under our names. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if is_llama(model.model):
        config, file = llama_config(model), LLAMA
        weights = {llama_name(name): weight for name, weight in weights.items()}
    else:
        file, config = OWN, own_config(model)
    _save_weights(weights, folder)
    (folder / file).write_text(json.dumps(config, indent=2) + "\n")


def save_for_transformers(model: Transformer, folder: Path, context: int | None) -> None:
    """Write a model that transformers loads: as a Llama if it is one, else for `mor.hf`.

    `context`: tokens that it was trained on at a time, where that is known."""
    if is_llama(model.model):
        save(model, folder)
        said = {"max_position_embeddings": context} if context else {}
        config = {**read_json(folder / LLAMA), **said}
    else:
        folder.mkdir(parents=True, exist_ok=True)
        weights = model.state_dict().items()
        own = {HF_PREFIX + k: v.detach().cpu().contiguous() for k, v in weights}
        _save_weights(own, folder)
        config = {
            "architectures": ["MorForCausalLM"],
            "model_type": HF_TYPE,
            **own_config(model),
            "max_position_embeddings": context,
            "dtype": "float32",
        }
    (folder / LLAMA).write_text(json.dumps(config, indent=2) + "\n")


def _save_weights(weights: dict[str, torch.Tensor], folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk, too, which is no OSError there
        raise OSError(errno.EIO, str(error)) from None


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
    refuse_changed(folder)
    return load_compared(folder)


def load_compared(folder: Path) -> Transformer:
    """The same of a folder whose digests were compared already: weights are hashed once."""
    shape = read_shape(folder)
    model = Transformer(
        shape.model, shape.size, shape.vocab_size, shape.seed, separator=shape.separator
    )
    tensors, name_of = read_weights(folder), _name_in(folder)
    if name_of is llama_name:
        refuse_disagreement(folder, tensors, shape)
    else:
        wanted = {name_of(name): tuple(own.shape) for name, own in model.state_dict().items()}
        source = OWN if (folder / OWN).exists() else LLAMA
        account(folder, stored(folder), wanted, source)
    model.load_state_dict({name: tensors[name_of(name)] for name in model.state_dict()})
    return model


def _name_in(folder: Path) -> Callable[[str], str]:
    """How a folder calls our tensors."""
    if (folder / OWN).exists():
        return str
    return (lambda name: HF_PREFIX + name) if is_hf(folder) else llama_name


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, of one file or several, in float32.

    Raises ExchangeError, also where a number is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in sorted({tensor.file for tensor in stored(folder).values()}):
        try:
            tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise ExchangeError(f"{path}: cannot be read ({error}); download it again") from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ExchangeError(f"{folder}: {name} has numbers that are not finite; {AGAIN}")
    return {name: tensor.float() for name, tensor in tensors.items()}


# -- Llama -------------------------------------------------------------------------------------


def refuse_disagreement(folder: Path, tensors: dict[str, Tensor], shape: Shape) -> None:
    """Refuse a head that is not the embedding although it is tied, and frequencies that are not
    those of rope_theta: leaving them out would be another model. Raises ExchangeError."""
    if HEAD in tensors and not torch.equal(tensors[HEAD], tensors[EMBEDDING]):
        raise ExchangeError(
            f"{folder}: {HEAD} differs from {EMBEDDING} although {LLAMA} says "
            "tie_word_embeddings=true; a model with a head of its own cannot be read"
        )
    pairs = torch.arange(0, shape.size.d_head, 2, dtype=torch.float64) / shape.size.d_head
    ours = (shape.model.rope_theta**-pairs).float()
    for name, tensor in tensors.items():
        if FREQUENCIES.fullmatch(name) and not _alike(tensor, ours):
            raise ExchangeError(
                f"{folder}: {name} are not the frequencies of rope_theta="
                f"{shape.model.rope_theta:g}; correct rope_theta in {LLAMA}"
            )


def _alike(given: Tensor, ours: Tensor) -> bool:
    """Equal up to the rounding of bfloat16, in which they may have been stored."""
    return given.shape == ours.shape and torch.allclose(given, ours, rtol=2**-7, atol=0)


def is_llama(model: ModelConfig) -> bool:
    """Whether transformers' LlamaForCausalLM is this model."""
    return has_all_weights(model) and not model.document_mask


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
