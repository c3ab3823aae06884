"""What a folder of published weights holds, from its JSON alone: Llama's form or our own. No torch.

What a Llama may have and we do not (biases, scaled rotary embeddings, an untied head, quantized
weights, tensors of another architecture) is refused by name, never left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mor.config import ConfigError, ModelConfig, SizeConfig, from_dict
from mor.model.published import ExchangeError, Stored, account, read_json, stored
from mor.values import SEEDS

__all__ = [
    "LLAMA",
    "OWN",
    "PRECISION",
    "ExchangeError",
    "Shape",
    "read_json",
    "read_shape",
    "shape_of",
]

LLAMA, OWN = "config.json", "mor.json"  # the configuration of either form
HF_TYPE = "mor_isoflop"  # model_type of what transformers loads after `import mor.hf`
PRECISION = "trained_precision"  # fp32 | bf16: what our own readers compute in, where it is said
HF_PREFIX = "transformer."  # of the names of its weights
EMBEDDING, HEAD, LAST_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
FREQUENCIES = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
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

READ = {
    *("num_attention_heads", "hidden_size", "head_dim", "num_hidden_layers", "vocab_size"),
    *("num_key_value_heads", "intermediate_size", "rope_parameters", "rope_theta"),
    *("rms_norm_eps", "initializer_range", "rope_scaling", "partial_rotary_factor", "model_type"),
    *("tie_word_embeddings", "hidden_act", "attention_bias", "mlp_bias", "sliding_window"),
    *("rope_interleaved", "quantization_config", "compression_config"),
}
HARMLESS = {  # tokens, lengths, types and how it was trained or saved
    *("architectures", "bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype"),
    *("transformers_version", "use_cache", "max_position_embeddings", "attention_dropout"),
    PRECISION,
    *("pretraining_tp", "_name_or_path", "is_llama_config", "return_dict", "id2label"),
}


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
    shape = _read_llama(folder)
    found = stored(folder)
    again = restated(found)
    kept = {name: tensor for name, tensor in found.items() if name not in again}
    account(folder, kept, llama_shapes(shape), LLAMA)
    return shape


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
        given.get("seed") or 0,
    )


def _own(file: Path) -> Shape:
    given = read_json(file)
    missing = {"model", "size", "vocab_size", "separator"} - given.keys()
    if missing:
        raise ExchangeError(f"{file}: has no {sorted(missing)[0]}; write the folder again")
    for name in ("model", "size"):
        if not isinstance(given[name], dict):
            raise ExchangeError(f"{file}: {name} is no group of settings; write the folder again")
    vocabulary = whole_setting(file, given, "vocab_size")
    for name, most in (("separator", vocabulary), ("seed", SEEDS)):
        value = given.get(name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and 0 <= value < most):
            raise ExchangeError(f"{file}: {name}={value}; a whole number below {most} is expected")
    try:
        return shape_of(given)
    except ConfigError as mistake:  # of a newer version, or damaged
        raise ExchangeError(f"{file}: {mistake}") from None


def _read_llama(folder: Path) -> Shape:
    file = folder / LLAMA
    given = read_json(file)
    _refuse_other_llamas(file, given)
    heads = whole_setting(file, given, "num_attention_heads")
    width = whole_setting(file, given, "hidden_size")
    d_head = whole_setting(file, given, "head_dim") if given.get("head_dim") else width // heads
    if heads * d_head != width:
        raise ExchangeError(
            f"{file}: hidden_size={width} is not num_attention_heads x head_dim = {heads} x "
            f"{d_head}; such a Llama cannot be read"
        )
    grouped = given.get("num_key_value_heads") is not None
    size = SizeConfig(
        name=folder.absolute().name,
        n_layers=whole_setting(file, given, "num_hidden_layers"),
        d_model=width,
        n_heads=heads,
        n_kv_heads=whole_setting(file, given, "num_key_value_heads") if grouped else heads,
        d_head=d_head,
        d_ff=whole_setting(file, given, "intermediate_size"),
    )
    rope = given.get("rope_parameters") or {}
    theta = given.get("rope_theta", rope.get("rope_theta"))
    model = ModelConfig(
        name="vanilla",
        rope_theta=_positive(file, "rope_theta", 10000.0 if theta is None else theta),
        norm_eps=_positive(file, "rms_norm_eps", given.get("rms_norm_eps", 1e-6)),
        init_std=_positive(file, "initializer_range", given.get("initializer_range", 0.02)),
    )
    return Shape(model, size, whole_setting(file, given, "vocab_size"))


def whole_setting(file: Path, given: dict[str, Any], name: str) -> int:
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        said = f"{name}={value}" if name in given else f"has no {name}"
        raise ExchangeError(f"{file}: {said}; a whole number above 0 is expected")
    return value


def _positive(file: Path, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        raise ExchangeError(f"{file}: {name}={value}; a number above 0 is expected")
    return float(value)


def unread_settings(folder: Path) -> list[str]:
    """Settings of a Llama's configuration that are neither read, nor checked, nor known to leave
    its numbers alone."""
    return sorted(read_json(folder / LLAMA).keys() - READ - HARMLESS)


def _refuse_other_llamas(file: Path, given: dict[str, Any]) -> None:
    """Refuse what would load and compute something else."""
    rope = given.get("rope_scaling") or given.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise ExchangeError(f"{file}: rope_scaling={rope}; only default can be read")
    kind = rope.get("rope_type", rope.get("type", "default"))
    partial = rope.get("partial_rotary_factor", given.get("partial_rotary_factor", 1.0))
    wanted = {
        "model_type": (given.get("model_type"), "llama"),
        "tie_word_embeddings": (bool(given.get("tie_word_embeddings", False)), True),
        "hidden_act": (given.get("hidden_act", "silu"), "silu"),
        "attention_bias": (bool(given.get("attention_bias", False)), False),
        "mlp_bias": (bool(given.get("mlp_bias", False)), False),
        "rope_scaling": (kind, "default"),
        "partial_rotary_factor": (partial, 1.0),
        "sliding_window": (given.get("sliding_window"), None),
        "rope_interleaved": (bool(given.get("rope_interleaved", False)), False),
    }
    for name, (value, ours) in wanted.items():
        if value != ours:
            raise ExchangeError(f"{file}: {name}={value}; only {ours} can be read")
    for name in ("quantization_config", "compression_config"):
        if (found := given.get(name)) is not None:
            method = found.get("quant_method", "unknown") if isinstance(found, dict) else found
            raise ExchangeError(
                f"{file}: {name} ({method}): its weights are numbers without their scales; save "
                "the model in bfloat16 or float32 first"
            )


# -- tensors -----------------------------------------------------------------------------------


def llama_name(name: str) -> str:
    """Their name of one of our tensors."""
    if not name.startswith("layers."):
        return {"embed.weight": EMBEDDING, "norm.weight": LAST_NORM}[name]
    _, layer, piece = name.removesuffix(".weight").split(".", 2)
    return f"model.layers.{layer}.{PIECES[piece]}.weight"


def llama_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The tensors of a plain Llama, by their names: (out, in) of each map."""
    size = shape.size
    width, q, kv = size.d_model, size.n_heads * size.d_head, size.n_kv_heads * size.d_head
    layer = {
        "attention.q": (q, width),
        "attention.k": (kv, width),
        "attention.v": (kv, width),
        "attention.o": (width, q),
        "mlp.gate": (size.d_ff, width),
        "mlp.up": (size.d_ff, width),
        "mlp.down": (width, size.d_ff),
        "attention_norm": (width,),
        "mlp_norm": (width,),
    }
    found: dict[str, tuple[int, ...]] = {EMBEDDING: (shape.vocab_size, width), LAST_NORM: (width,)}
    for i in range(size.n_layers):
        found |= {llama_name(f"layers.{i}.{piece}.weight"): form for piece, form in layer.items()}
    return found


def restated(found: dict[str, Stored]) -> list[str]:
    """Tensors that only say again what others or the configuration say, if their values agree: the
    head of a tied model, and the frequencies of the rotary embedding."""
    return [name for name in found if name == HEAD or FREQUENCIES.fullmatch(name)]
