"""A configuration without what does nothing: settings that no number of this run depends on go
back to their defaults, so that they give no run a new id.

`model.router.alpha` is such a setting for a recursive model, `model.kv_share` wherever no depth
reads another's keys and values, and a capacity list that says what its default would say.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any, TypeVar

from mor.config import Config, ModelConfig, RelaxationConfig, RouterConfig, TrainConfig
from mor.model.sharing import REUSING, block_layers, capacities

T = TypeVar("T")


def canonical(config: Config) -> Config:
    """The same run, every setting that it does not depend on at its default."""
    model = _model(config)
    return replace(config, model=model, train=_train(config.train, model))


def _default(node: T, *names: str) -> T:
    """A copy with these fields at the defaults of their dataclass."""
    fields: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(node)}  # type: ignore
    return replace(node, **{name: fields[name] for name in names})  # type: ignore[type-var]


def _model(config: Config) -> ModelConfig:
    model = config.model
    if model.architecture == "vanilla":
        model = _default(model, "block_layers", "sharing")
        if model.kv == "shared":  # one recursion has nobody to share with
            model = _default(model, "kv")
    elif model.block_layers == block_layers(replace(model, block_layers=None), config.size):
        model = replace(model, block_layers=None)
    if model.kv not in REUSING:
        model = _default(model, "kv_share")
    if model.capacity == capacities(replace(model, capacity=None)):
        model = replace(model, capacity=None)
    return replace(model, router=_router(model.router), relaxation=_relaxation(model.relaxation))


def _router(router: RouterConfig) -> RouterConfig:
    if router.type == "none":
        return RouterConfig()
    if router.type == "expert":
        dead = ["balancing", "balance_coeff", "bias_update_rate", "balance_warmup_steps"]
        if router.sampling == "aux_router":
            dead.append("aux_coeff")
        if router.gating == "plain":  # raw logits rank, and no gate scales
            dead += ["alpha", "activation"] if router.network != "random" else ["alpha"]
    else:
        dead = ["sampling", "aux_coeff", "capacity_warmup_steps"]
        dead.append("bias_update_rate" if router.balancing == "loss" else "balance_coeff")
    if router.network == "random":  # it has no weights: nothing teaches it
        dead += ["temperature", "sampling", "aux_coeff", "balancing", "balance_coeff"]
        dead += ["bias_update_rate", "z_coeff"]
    return _default(router, *dead)


def _relaxation(relaxation: RelaxationConfig) -> RelaxationConfig:
    dead = []
    if relaxation.type not in ("lora", "dora"):
        dead.append("rank")
    if relaxation.type != "prompt":
        dead.append("prompt_length")
    return _default(relaxation, *dead)


def _train(train: TrainConfig, model: ModelConfig) -> TrainConfig:
    dead = []
    if train.init_fingerprint is None:
        dead.append("init_method")
    if train.schedule == "cosine":
        dead.append("cooldown_fraction")
    if train.warmup_steps is not None:
        dead += ["warmup_fraction", "warmup_budget"]
    if train.warmup_steps is not None or model.architecture == "vanilla":
        dead.append("warmup_recursions")
    return _default(train, *dead)
