"""The components of a model and where each is registered. No torch.

A component is a spec (here, torch-free: settings, checks, parameters, FLOPs, planned tokens) and a
module (torch, imported when a model is built). Code outside of the components asks the spec and
compares no name. A new one is its own files and one line in a table below (docs/extending.md).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from mor.config import ConfigError, ModelConfig, SizeConfig
from mor.model.kv.spec import check_kv, inactive_kv
from mor.model.layout import Layout
from mor.model.lookup import lookup, not_negative, positive
from mor.model.recurrence.looped_spec import LOOPED
from mor.model.recurrence.spec import MOR, RECURSIVE, VANILLA, RecurrenceSpec
from mor.model.relaxation.spec import check_relaxation, relaxation_of
from mor.model.routers.expert_spec import EXPERT
from mor.model.routers.mod_spec import MOD
from mor.model.routers.spec import NO_ROUTER, RouterSpec, check_settings
from mor.model.routers.token_spec import TOKEN
from mor.model.sharing import pattern_of

RECURRENCES = {spec.name: spec for spec in (VANILLA, RECURSIVE, MOR, LOOPED)}
ROUTERS = {spec.name: spec for spec in (NO_ROUTER, EXPERT, TOKEN, MOD)}


def recurrence_of(model: ModelConfig) -> RecurrenceSpec:
    """How the block of a model is applied. Raises ConfigError for an unknown architecture."""
    return lookup("model.architecture", model.architecture, RECURRENCES)


def router_of(model: ModelConfig) -> RouterSpec:
    """How the tokens of a model are routed. Raises ConfigError for an unknown router."""
    return lookup("model.router.type", model.router.type, ROUTERS)


def layout(model: ModelConfig, size: SizeConfig) -> Layout:
    """Which unique layer is applied at which depth."""
    return router_of(model).split(model, recurrence_of(model).layout(model, size))


def n_blocks(model: ModelConfig, size: SizeConfig) -> int:
    """Blocks that a token can pass, as work is counted: recursions, loops or routed layers."""
    return recurrence_of(model).loops(model, layout(model, size))


def shares(model: ModelConfig, size: SizeConfig, step: int | None = None) -> tuple[float, ...]:
    """Share of a sequence's tokens that each block takes: 1 where nothing is routed."""
    return router_of(model).shares(model, n_blocks(model, size), step)


def depends_on_step(model: ModelConfig) -> bool:
    """Whether a training forward needs to know its step (warm-up, random routers or depths)."""
    of_router = router_of(model).depends_on_step(model.router)
    return of_router or recurrence_of(model).depends_on_step(model)


def is_plain(model: ModelConfig) -> bool:
    """Whether the model is an unshared, unrouted stack."""
    return not (recurrence_of(model).ties or router_of(model).routes)


def options_type(values: dict[str, Any]) -> type | None:
    """The dataclass of the settings that a model's components bring along; None: they bring none.

    `values` are the settings below `model.`, as they were read.
    """
    router = values.get("router") or {}
    found = (
        RECURRENCES.get(values.get("architecture", VANILLA.name)),
        ROUTERS.get(router.get("type", NO_ROUTER.name) if isinstance(router, dict) else ""),
    )
    types = [spec.options for spec in found if spec is not None and spec.options is not None]
    return types[0] if types else None


def settings_of_components() -> dict[str, str]:
    """Settings below `model.` that one component alone has, with the setting that chooses it."""
    tables = {"model.architecture": RECURRENCES, "model.router.type": ROUTERS}
    return {
        f"model.{setting.name}": f"{chooser}={spec.name}"
        for chooser, table in tables.items()
        for spec in table.values()  # type: ignore[attr-defined]
        if spec.options is not None
        for setting in dataclasses.fields(spec.options)
    }


def check_model(model: ModelConfig, size: SizeConfig) -> None:
    """Raise ConfigError for a model that cannot be built."""
    recurrence, router, pattern = recurrence_of(model), router_of(model), pattern_of(model)
    relaxation_of(model)
    positive("model.n_recursions", model.n_recursions)
    recurrence.check(model, size)
    positive("model.block_layers", model.block_layers)
    ties, aligned = recurrence.ties, pattern.aligned
    check_kv(model, size, ties, aligned, router.chooses_tokens)
    positive("model.kv_share", model.kv_share)
    positive("model.rope_theta", model.rope_theta)
    not_negative("model.norm_eps", model.norm_eps)
    positive("model.init_std", model.init_std)  # weights of 0 have no gradient
    if model.capacity is not None:
        _check_capacity(model, router)
    check_relaxation(model, size, ties)
    check_settings(model.router)
    if not router.goes_with(recurrence):
        raise ConfigError(
            "model.router.type",
            router.name,
            f"does not go with model.architecture={recurrence.name}",
            "choose one of "
            + ", ".join(name for name, spec in ROUTERS.items() if spec.goes_with(recurrence)),
        )
    router.check(model, aligned)


def _check_capacity(model: ModelConfig, router: RouterSpec) -> None:
    if not router.chooses_tokens:
        shown = "[" + ",".join(f"{c:g}" for c in model.capacity or ()) + "]"
        raise ConfigError(
            "model.capacity", shown, "only expert choice has capacities", "set it with model=mor"
        )
    router.check_capacity(model)


def reset_inactive(model: ModelConfig, size: SizeConfig) -> ModelConfig:
    """The same model, settings that nothing of it depends on at their defaults."""
    recurrence, router = recurrence_of(model), router_of(model)
    names = [*recurrence.inactive(model, size), *inactive_kv(model, recurrence.ties)]
    if model.capacity is not None:
        blocks = n_blocks(model, size)
        default = dataclasses.replace(model, capacity=None)
        if router.shares(model, blocks) == router.shares(default, blocks):
            names.append("capacity")
    own = {f.name for f in dataclasses.fields(model)}
    options = model.options
    if options is not None:
        options = with_defaults(options, *(name for name in names if name not in own))
    return dataclasses.replace(
        with_defaults(model, *(name for name in names if name in own)),
        options=options,
        router=with_defaults(model.router, *router.inactive(model.router)),
        relaxation=with_defaults(model.relaxation, *relaxation_of(model).inactive),
    )


def with_defaults(node: Any, *names: str) -> Any:
    """A copy of a dataclass with these fields at their defaults."""
    fields = {f.name: f.default for f in dataclasses.fields(node)}
    return dataclasses.replace(node, **{name: fields[name] for name in names})
