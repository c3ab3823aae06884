"""Per-recursion parameters beside the tied block (paper app. E): the torch-free half.

A relaxation is a row of `RELAXATIONS`: what it costs in parameters and FLOPs, and its torch half
(`mor.model.relaxation.adapters`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mor.config import ConfigError, ModelConfig, RelaxationConfig, SizeConfig
from mor.model.lookup import lookup, positive

Count = Callable[[RelaxationConfig, SizeConfig, bool], int]  # the bool: the depth computes v, too


@dataclass(frozen=True)
class RelaxationSpec:
    """One value of `model.relaxation.type`."""

    adapter: str | None = None  # torch half of what one depth has
    vectors: str | None = None  # torch half of what a recursion has once: a vector of d_model
    params: Count = lambda relaxation, size, computes: 0
    forward_flops: Count = lambda relaxation, size, computes: 0
    inactive: tuple[str, ...] = ("rank", "prompt_length")
    low_rank: bool = False

    def vector_params(self, size: SizeConfig) -> int:
        """Parameters that a recursion has once, whatever its depths."""
        return size.d_model if self.vectors else 0


def maps(size: SizeConfig, computes: bool) -> list[int]:
    """Output widths of the changed maps: q, and v where the depth computes it."""
    return [size.n_heads * size.d_head] + [size.n_kv_heads * size.d_head] * computes


def lora_params(relaxation: RelaxationConfig, size: SizeConfig, computes: bool) -> int:
    return sum(relaxation.rank * (size.d_model + out) for out in maps(size, computes))


def dora_params(relaxation: RelaxationConfig, size: SizeConfig, computes: bool) -> int:
    return lora_params(relaxation, size, computes) + sum(maps(size, computes))


def lora_flops(relaxation: RelaxationConfig, size: SizeConfig, computes: bool) -> int:
    return 2 * lora_params(relaxation, size, computes)


def prompt_params(relaxation: RelaxationConfig, size: SizeConfig, computes: bool) -> int:
    return 2 * relaxation.prompt_length * size.n_kv_heads * size.d_head + 1


def prompt_flops(relaxation: RelaxationConfig, size: SizeConfig, computes: bool) -> int:
    """Attention to every key of the prompt."""
    return 4 * size.n_heads * size.d_head * relaxation.prompt_length


ADAPTERS = "mor.model.relaxation.adapters"
RELAXATIONS = {
    "none": RelaxationSpec(),
    "encoding": RelaxationSpec(vectors=f"{ADAPTERS}:Encoding"),
    "scaling": RelaxationSpec(vectors=f"{ADAPTERS}:Scaling"),
    "lora": RelaxationSpec(
        f"{ADAPTERS}:lora", None, lora_params, lora_flops, ("prompt_length",), low_rank=True
    ),
    "dora": RelaxationSpec(
        f"{ADAPTERS}:dora", None, dora_params, lora_flops, ("prompt_length",), low_rank=True
    ),
    "prompt": RelaxationSpec(f"{ADAPTERS}:prompt", None, prompt_params, prompt_flops, ("rank",)),
}


def relaxation_of(model: ModelConfig) -> RelaxationSpec:
    """The relaxation of a model. Raises ConfigError for an unknown one."""
    return lookup("model.relaxation.type", model.relaxation.type, RELAXATIONS)


def check_relaxation(model: ModelConfig, size: SizeConfig, ties: bool) -> None:
    """Raise ConfigError where nothing is tied, or numbers cannot be."""
    relaxation, spec = model.relaxation, relaxation_of(model)
    positive("model.relaxation.rank", relaxation.rank)
    positive("model.relaxation.prompt_length", relaxation.prompt_length)
    if spec is RELAXATIONS["none"]:
        return
    if not ties:
        raise ConfigError(
            "model.relaxation.type",
            relaxation.type,
            "a vanilla model ties nothing that could be relaxed",
            "choose model=recursive or model=mor, or model.relaxation.type=none",
        )
    if spec.low_rank and relaxation.rank > size.d_model:
        raise ConfigError(
            "model.relaxation.rank",
            relaxation.rank,
            f"above size.d_model={size.d_model}: a full-rank change saves nothing",
            f"type model.relaxation.rank={max(1, size.d_model // 8)}",
        )
