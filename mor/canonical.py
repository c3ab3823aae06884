"""A configuration with its inactive settings reset: what no number of this run depends on goes back
to its default, so that it gives no run a new id.

`model.router.alpha` is such a setting for a recursive model, `model.kv_share` wherever no depth
reads another's keys and values, and a capacity list that says what its default would say. Each
component's spec names its own (`mor.model.components`).
"""

from __future__ import annotations

from dataclasses import replace

from mor.config import Config, ModelConfig, TrainConfig
from mor.model.components import recurrence_of, reset_inactive, with_defaults
from mor.optim.spec import optimizer_of


def canonical(config: Config) -> Config:
    """The same run, every setting that it does not depend on at its default."""
    model = reset_inactive(config.model, config.size)
    return replace(config, model=model, train=_train(config.train, model))


def _train(train: TrainConfig, model: ModelConfig) -> TrainConfig:
    inactive = []
    if train.init_fingerprint is None:
        inactive.append("init_method")
    if train.schedule == "cosine":
        inactive.append("cooldown_fraction")
    if train.warmup_steps is not None:
        inactive += ["warmup_fraction", "warmup_budget"]
    if train.warmup_steps is not None or not recurrence_of(model).ties:
        inactive.append("warmup_recursions")
    inactive += optimizer_of(train).inactive
    reset: TrainConfig = with_defaults(train, *inactive)
    return reset
