"""Every setting that is a number has a range: one outside of it is refused by its own name."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from mor.config import (
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    RouterConfig,
    SizeConfig,
    TrainConfig,
    replace_at,
)
from mor.data.fingerprint import check
from mor.model.components import RECURRENCES, ROUTERS
from mor.model.recurrence.looped_spec import LoopedOptions
from mor.model.routers.mod_spec import ModOptions
from mor.train.schedule import schedule
from sweeps.config import Resources, SweepConfig, arms, settings_of, sweep_config
from sweeps.definition import StudyConfig, finish

SIZE = SizeConfig("tiny", n_layers=5, d_model=16, n_heads=2, n_kv_heads=1, d_head=8, d_ff=40)
MODELS = {
    "vanilla": ModelConfig("vanilla"),
    "reuses": ModelConfig("vanilla", kv="cycle"),
    "recursive": ModelConfig("recursive", "recursive", 3),
    "mor": ModelConfig("mor", "mor", 3, router=RouterConfig("expert")),
    "token": ModelConfig("mor", "mor", 3, router=RouterConfig("token", activation="softmax")),
    "looped": ModelConfig("looped", "looped", 3, options=LoopedOptions(backprop_recursions=2)),
    "mod": ModelConfig("mod", router=RouterConfig("mod"), options=ModOptions()),
}
WAYS: dict[str, dict[str, Any]] = {
    "a budget": {},
    "tokens": {"tokens": 1e9},
    "a recipe": {"train.recipe": "steplaw"},
    "a warm-up budget": {"train.warmup_steps": None, "train.warmup_budget": 1e12},
}
# settings at which 0 is a choice
ZERO = {
    *("model.router.aux_coeff", "model.router.balance_coeff", "model.router.bias_update_rate"),
    *("model.router.z_coeff", "model.norm_eps", "train.weight_decay", "train.warmup_steps"),
    *("model.router.capacity_warmup_steps", "model.router.balance_warmup_steps"),
    *("train.beta1", "train.beta2", "train.muon_momentum", "train.eval_points", "seed"),
    *("train.warmup_fraction", "train.cooldown_fraction"),
    *("launch.max_hours", "launch.max_gpu_hours", "launch.slurm.pack_min"),
    *("launch.slurm.gpus_per_node", "launch.slurm.per_size.9k.gpus_per_node"),
}


def is_number(hint: Any) -> bool:
    return bool({int, float} & set(arms(hint)))


def numbers_of(cls: Any) -> list[str]:
    return [name for name, hint in settings_of(cls) if is_number(hint)]


OF_COMPONENTS = {
    f"model.{f.name}": kind
    for kind, options in (("looped", LoopedOptions), ("mod", ModOptions))
    for f in fields(options)
    if is_number(typing.get_type_hints(options)[f.name])
}
OF_A_SIZE = [f"launch.slurm.per_size.9k.{name}" for name in numbers_of(Resources)]


def outside(name: str) -> Iterator[float]:
    yield from (-3, -1, math.nan, math.inf, -math.inf)
    if name not in ZERO:
        yield 0


def refused(name: str, set_it: Any) -> None:
    for value in outside(name):
        with pytest.raises(ConfigError) as caught:
            set_it(value)
        assert caught.value.setting == name, (name, value, str(caught.value))


def planned(model: ModelConfig, settings: dict[str, Any]) -> None:
    """What planning makes of a run's settings. Raises ConfigError."""
    train = TrainConfig(warmup_steps=3)
    config = Config(model, SIZE, DataConfig(fingerprint="x"), train, budget=1e15)
    for name, value in settings.items():
        config = replace_at(config, name, value)
    config = finish(config, StudyConfig("s"), set(settings))
    check(config.data)
    schedule(config)


@pytest.mark.parametrize("name", [*numbers_of(Config), *OF_COMPONENTS])
def test_a_number_of_a_run_out_of_its_range_is_refused(name: str) -> None:
    kinds = [OF_COMPONENTS[name]] if name in OF_COMPONENTS else list(MODELS)
    for way in WAYS:
        if (way, name) == ("tokens", "budget"):
            continue  # which tokens replace
        for kind in kinds:
            model, given = MODELS[kind], WAYS[way]
            refused(name, lambda value, m=model, given=given: planned(m, {**given, name: value}))


def swept(name: str, value: float) -> None:
    values: dict[str, Any] = {"launch": {}, "cluster": {}, "study": {"name": "s"}}
    node, keys = values, name.split(".")
    for key in keys[:-1]:
        node = node.setdefault(key, {})
    node[keys[-1]] = value
    sweep_config({**values, "runs_dir": "runs", "studies_dir": "studies"})


@pytest.mark.parametrize("name", [*numbers_of(SweepConfig), *OF_A_SIZE])
def test_a_number_around_a_run_out_of_its_range_is_refused(name: str) -> None:
    refused(name, lambda value: swept(name, value))


def test_no_setting_is_left_out() -> None:
    """What is looked at are all fields that are numbers, but for those of lists and free forms."""
    found = {*numbers_of(Config), *numbers_of(SweepConfig)}
    assert {"train.warmup_steps", "model.router.alpha", "cluster.node_gpus"} <= found
    assert found >= {name for name in ZERO if "per_size" not in name}
    assert not any(is_dataclass(hint) for _, hint in settings_of(Config))
    brought = {spec.options for table in (RECURRENCES, ROUTERS) for spec in table.values()}
    assert brought == {None, LoopedOptions, ModOptions}


@pytest.mark.parametrize("name", sorted(ZERO - {"launch.slurm.per_size.9k.gpus_per_node"}))
def test_where_zero_is_a_choice_it_is_taken(name: str) -> None:
    if name in numbers_of(SweepConfig):
        swept(name, 0)
    else:
        planned(MODELS["vanilla"], {name: 0})
