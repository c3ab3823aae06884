"""Mixture-of-Depths (Raposo et al. 2024, arXiv 2404.02258): expert choice around blocks of an
unshared stack. No torch.

Every `model.routed_every`-th layer is a block that only the top `model.capacity` of the tokens
pass; the others go around it. Each routed layer chooses among all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mor.config import ConfigError, ModelConfig, SizeConfig
from mor.model.kv.spec import mode_of
from mor.model.layout import Layout
from mor.model.recurrence.spec import RecurrenceSpec
from mor.model.routers.expert_spec import ExpertSpec, warmed_up

CAPACITY = 0.125  # share of the tokens that a routed layer takes (sec. 4.1)


@dataclass(frozen=True)
class ModOptions:
    """Settings below `model.` that Mixture-of-Depths alone has."""

    routed_every: int = 2  # every such layer is routed, the ones between take every token


@dataclass(frozen=True)
class ModSpec(ExpertSpec):
    """`model.router.type=mod`."""

    options: ClassVar[type] = ModOptions

    def goes_with(self, recurrence: RecurrenceSpec) -> bool:
        return not recurrence.ties

    def split(self, model: ModelConfig, layout: Layout) -> Layout:
        """Each layer by itself."""
        return Layout((), tuple((layer,) for layer in layout.depths), ())

    def check(self, model: ModelConfig, aligned: bool) -> None:
        super().check(model, aligned)
        if every(model) < 1:
            raise ConfigError(
                "model.routed_every", every(model), "must be above 0", "type model.routed_every=2"
            )
        mode = mode_of(model)
        if mode.reads_first or mode.sources:
            raise ConfigError(
                "model.kv",
                model.kv,
                "a routed layer attends to the tokens that it takes",
                "type model.kv=recursion",
            )

    def check_capacity(self, model: ModelConfig) -> None:
        capacity = model.capacity or ()
        if len(capacity) != 1 or not 0 < capacity[0] <= 1:
            raise ConfigError(
                "model.capacity",
                "[" + ",".join(f"{c:g}" for c in capacity) + "]",
                "Mixture-of-Depths has one share of tokens, above 0 and at most 1",
                f"type 'model.capacity=[{CAPACITY}]'",
            )

    def shares(
        self, model: ModelConfig, n_blocks: int, step: int | None = None
    ) -> tuple[float, ...]:
        (share,) = model.capacity or (CAPACITY,)
        (share,) = warmed_up((share,), model.router.capacity_warmup_steps, step)
        return tuple(share if is_routed(model, r) else 1.0 for r in range(n_blocks))

    def shallower(self, model: ModelConfig) -> tuple[int, ...]:
        return ()

    def scored_blocks(self, model: ModelConfig, n_blocks: int) -> int:
        return sum(is_routed(model, r) for r in range(n_blocks))

    def token_flops(self, model: ModelConfig, size: SizeConfig, n_blocks: int) -> tuple[float, ...]:
        each = super().token_flops(model, size, n_blocks)
        return tuple(x if is_routed(model, r) else 0.0 for r, x in enumerate(each))

    def token_params(self, model: ModelConfig, size: SizeConfig, n_blocks: int) -> tuple[int, ...]:
        each = super().token_params(model, size, n_blocks)
        return tuple(x if is_routed(model, r) else 0 for r, x in enumerate(each))


def every(model: ModelConfig) -> int:
    options: Any = model.options
    return options.routed_every if isinstance(options, ModOptions) else ModOptions().routed_every


def is_routed(model: ModelConfig, r: int) -> bool:
    """Whether layer `r` (from 0) is routed: the second one of each pair, by default."""
    return r % every(model) == every(model) - 1


MOD = ModSpec(
    "mod", "mor.model.routers.mod:MixtureOfDepths", routes=True, chooses_tokens=True, nested=False
)
