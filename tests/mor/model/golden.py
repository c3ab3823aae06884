"""Reference cases of the authors' implementation: their JSON and names in our terms.

The cases of `tests/reference` always run; MOR_GOLDEN_DIR names a folder of further ones. A case
there replaces the one of the same name here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mor.config import ModelConfig, RouterConfig, SizeConfig
from mor.model.layout import Layout
from mor.model.transformer import Transformer

FOLDERS = [Path(__file__).parents[2] / "reference"]
if extra := os.environ.get("MOR_GOLDEN_DIR"):
    FOLDERS.append(Path(extra))
FILES = {
    path.stem: path
    for folder in FOLDERS
    for path in sorted(folder.glob("*.json"))
    if path.with_suffix(".npz").exists()
}
CASES = sorted(FILES)

# Options and the values of theirs that are implemented; any other value skips the case.
ONLY: dict[str, tuple[Any, ...]] = {
    "config.tie_word_embeddings": (True,),
    "recursive.base_depth": (None,),
    "recursive.ln_share": (True,),
    "mor.rand_router": (False,),  # their scores come from a global generator
    "mor.router_type": ("linear", "mlp", "wide_mlp"),
    "mor.expert.include_first": (True,),
    "mor.expert.gating": ("weighted", "plain"),
    "mor.expert.router_func": ("sigmoid", "tanh", "none", None),
    "mor.token.gating": ("weighted", "plain"),
    "mor.token.router_func": ("softmax", "sigmoid"),
}
FREE = {
    *(f"config.{name}" for name in ("vocab_size", "hidden_size", "intermediate_size")),
    *(f"config.num_{name}" for name in ("hidden_layers", "attention_heads", "key_value_heads")),
    *(f"config.{name}" for name in ("rms_norm_eps", "rope_theta", "head_dim")),
    *(f"recursive.{name}" for name in ("enable", "num_recursion", "sharing", "initialization")),
    *(f"kv_sharing.{name}" for name in ("enable", "base_depth", "num_recursion", "sharing")),
    "kv_sharing.update_cache",
    *(f"mor.{name}" for name in ("enable", "type", "capacity", "z_loss", "z_coeff", "temp")),
    *(f"mor.expert.{name}" for name in ("alpha", "sampling", "coeff", "cap_warmup_step")),
    *(f"mor.token.{name}" for name in ("alpha", "balancing", "coeff", "u", "bal_warmup_step")),
}


class Case:
    """One reference case, read from its files and from nothing else."""

    def __init__(self, name: str) -> None:
        self.spec = json.loads(FILES[name].read_text())
        with np.load(FILES[name].with_suffix(".npz"), allow_pickle=False) as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays}
        self.results: dict[str, Any] = self.spec["results"]
        self.tied: dict[str, str] = self.spec.get("tied", {})

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        start = f"{prefix}/"
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}

    def unsupported(self) -> str | None:
        """The first option of this case that is not implemented."""
        kind = self.spec["mor"]["type"] if self.spec["mor"]["enable"] else None
        for option, value in options(self.spec):
            group = option.rsplit(".", 1)[0]
            off = group in self.spec and not self.spec[group].get("enable", True)
            if off or group in {"mor.expert", "mor.token"} - {f"mor.{kind}"}:
                continue
            if option in ONLY and value not in ONLY[option]:
                return f"{option}={value}"
            if option not in ONLY and option not in FREE and value:
                return f"{option}={value}"
        return None

    def build(self) -> Transformer:
        config = self.spec["config"]
        model = Transformer(self.model_config(), self.size_config(), config["vocab_size"])
        ours = self.ours("param", model)
        model.load_state_dict(ours, strict=True)
        return model

    def ours(self, group: str, model: Transformer) -> dict[str, torch.Tensor]:
        """Arrays by our names, without weights of keys and values that are never computed."""
        named = {our_name(k, model): v for k, v in self.group(group).items()}
        held = model.state_dict()
        return {k: v for k, v in named.items() if k in held or not k.endswith(UNUSED)}

    @property
    def router_network(self) -> str:
        """By the shape of the weights: theirs may call one of width 2d wide."""
        for name, weight in self.group("param").items():
            if name.endswith("mor_router.router.0.weight"):
                return {2: "mlp", 4: "wide_mlp"}[weight.shape[0] // weight.shape[1]]
        return "linear"

    def size_config(self) -> SizeConfig:
        config = self.spec["config"]
        heads = config["num_attention_heads"]
        return SizeConfig(
            name="golden",
            n_layers=config["num_hidden_layers"],
            d_model=config["hidden_size"],
            n_heads=heads,
            n_kv_heads=config["num_key_value_heads"],
            d_head=config.get("head_dim") or config["hidden_size"] // heads,
            d_ff=config["intermediate_size"],
        )

    def model_config(self) -> ModelConfig:
        config, recursive, mor = (self.spec[k] for k in ("config", "recursive", "mor"))
        common: dict[str, Any] = {
            "name": "golden",
            "norm_eps": config["rms_norm_eps"],
            "rope_theta": config["rope_theta"],
        }
        shared = self.spec["kv_sharing"]
        if not recursive["enable"]:
            if shared["enable"]:
                common |= {"kv": shared["sharing"], "kv_share": shared["num_recursion"]}
            return ModelConfig(**common)
        common |= {
            "architecture": "recursive",
            "n_recursions": recursive["num_recursion"],
            "sharing": recursive["sharing"],
            "kv": recursive_kv(shared),
            "kv_share": recursive["num_recursion"],
        }
        if mor["enable"]:
            router = router_config(mor, self.router_network)
            common |= {"architecture": "mor", "router": router}
        if mor["enable"] and mor["type"] == "expert":
            common["capacity"] = tuple(float(c) for c in mor["capacity"].split(","))
        return ModelConfig(**common)


def options(tree: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Every option of a case as (dotted name, value)."""
    found = []
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("results", "tied"):
            found += options(value, f"{path}{key}.")
        elif path:
            found.append((f"{path}{key}", value))
    return found


def recursive_kv(shared: dict[str, Any]) -> str:
    if not shared["enable"]:
        return "recursion"
    if shared["sharing"] == "sequence":
        return "sequence"
    return "hybrid" if shared.get("update_cache") else "shared"


def router_config(mor: dict[str, Any], network: str) -> RouterConfig:
    chosen = mor[mor["type"]]
    activation = chosen["router_func"] or "none"
    common: dict[str, Any] = {
        "type": mor["type"],
        "network": network,
        "activation": activation,
        "alpha": 1.0 if activation == "none" else chosen["alpha"],  # theirs scales squashed ones
        "temperature": mor["temp"],
        "gating": chosen["gating"],
        "z_coeff": mor["z_coeff"] if mor["z_loss"] else 0.0,
    }
    if mor["type"] == "expert":
        return RouterConfig(
            **common,
            sampling=chosen["sampling"],
            aux_coeff=chosen["coeff"],
            capacity_warmup_steps=chosen["cap_warmup_step"],
        )
    return RouterConfig(
        **common,
        balancing=chosen["balancing"],
        balance_coeff=chosen["coeff"],
        bias_update_rate=chosen["u"],
        balance_warmup_steps=chosen["bal_warmup_step"],
    )


UNUSED = ("attention.k.weight", "attention.v.weight")
PIECES = {
    "self_attn.q_proj": "attention.q",
    "self_attn.k_proj": "attention.k",
    "self_attn.v_proj": "attention.v",
    "self_attn.o_proj": "attention.o",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "mlp_norm",
}
ROUTERS = {"router": "", "router.0": ".hidden", "router.2": ".out"}


def our_name(theirs: str, model: Transformer) -> str:
    """The name of one of their parameters in our model."""
    name = theirs.removeprefix("model.")
    if name in ("embed_tokens.weight", "lm_head.weight"):
        return "embed.weight"
    if not name.startswith("layers."):
        return name
    _, index, rest = name.split(".", 2)
    layout, router = model.layout, model.model.router.type
    if router == "none":
        return layer_name(layout.depths[int(index)], rest)
    before = len(layout.prologue)
    units = len(layout.recursions) if router == "expert" else 1
    unit = int(index) - before
    if unit < 0:
        return layer_name(layout.prologue[int(index)], rest)
    if unit >= units:
        return layer_name(layout.epilogue[unit - units], rest)
    return unit_name(unit, rest, layout)


def unit_name(unit: int, rest: str, layout: Layout) -> str:
    """Inside one of their routed units: block.I, block_list.R.I, mor_router, mlp_router."""
    head, tail = rest.split(".", 1) if "." in rest else (rest, "")
    if head == "router_bias":
        return "balance_bias"
    if head in ("mor_router", "mlp_router"):
        group = "routers" if head == "mor_router" else "aux_routers"
        return f"{group}.{unit}{ROUTERS[tail.removesuffix('.weight')]}.weight"
    if head == "block_list":
        recursion, tail = tail.split(".", 1)
        unit = int(recursion)
    layer, tail = tail.split(".", 1)
    return layer_name(layout.recursions[unit][int(layer)], tail)


def layer_name(layer: int, rest: str) -> str:
    return f"layers.{layer}.{PIECES[rest.removesuffix('.weight')]}.weight"
