"""Optimizers: which weights each takes, exact resume, planned bytes, ids."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mor.config import Config, ConfigError
from mor.flops import run_cost
from mor.identity import identity, run_id
from mor.model.transformer import Transformer
from mor.optim.spec import OPTIMIZERS, optimizer_of
from mor.optim.state import build_optimizer, named_state
from mor.validate import validate
from tests.mor.train.interrupted import ends_with_the_same_bits


def with_train(config: Config, **changes) -> Config:
    return replace(config, train=replace(config.train, **changes))


def built(config: Config):
    model = Transformer(config.model, config.size, config.data.vocab_size)
    return model, build_optimizer(model, config.train)


def test_muon_takes_the_matrices_of_layers_and_adamw_the_rest(toy_run) -> None:
    model, optimizer = built(with_train(toy_run("mor"), optimizer="muon", muon_lr=0.02))
    muon, adamw = optimizer.parts
    assert isinstance(muon, torch.optim.Muon)
    names = {p: name for name, p in model.named_parameters()}
    of_muon = {names[p] for group in muon.param_groups for p in group["params"]}
    of_adamw = {names[p] for group in adamw.param_groups for p in group["params"]}
    assert of_muon | of_adamw == set(names.values())
    assert not of_muon & of_adamw
    assert "layers.0.mlp.up.weight" in of_muon
    assert {"embed.weight", "routers.0.weight", "layers.0.mlp_norm.weight"} <= of_adamw
    optimizer.set_rate(0.5)
    rates = {group["lr"] for group in muon.param_groups}, {g["lr"] for g in adamw.param_groups}
    assert rates == ({0.01}, {toy_run("mor").train.lr * 0.5})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_planned_bytes_are_those_of_the_state(name: str, toy_run) -> None:
    config = with_train(toy_run("mor"), optimizer=name)
    model, optimizer = built(config)
    state = {k: v for k, v in named_state(model, optimizer).items() if k.startswith("optimizer/")}
    steps = [k for k in state if k.endswith("/step")]
    counted = sum(v.numel() * v.element_size() for k, v in state.items() if k not in steps)
    assert counted == optimizer_of(config.train).state_bytes(run_cost(config).params)


def test_an_interrupted_muon_run_ends_with_the_same_bits(toy_run, tmp_path) -> None:
    config = with_train(toy_run("mor", steps=24), optimizer="muon")
    one, two = ends_with_the_same_bits(config, tmp_path)
    assert one.loss == two.loss


def test_the_optimizer_is_identity_where_it_is_not_adamw(toy_run) -> None:
    config = toy_run("mor")
    assert run_id(with_train(config, optimizer="adamw", muon_lr=0.1)) == run_id(config)
    muon = with_train(config, optimizer="muon")
    assert run_id(muon) != run_id(config)
    assert run_id(with_train(muon, muon_lr=0.1)) != run_id(muon)
    assert identity(muon)["train"]["optimizer"] == "muon"


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"optimizer": "sgd"}, "train.optimizer"),
        ({"optimizer": "muon", "muon_lr": -1.0}, "train.muon_lr"),
        ({"optimizer": "muon", "muon_momentum": 1.5}, "train.muon_momentum"),
    ],
)
def test_wrong_settings_are_refused_by_name(changes, setting, toy_run) -> None:
    with pytest.raises(ConfigError) as found:
        validate(with_train(toy_run("mor"), **changes))
    assert found.value.setting == setting


def test_muon_is_not_sharded(toy_run) -> None:
    config = with_train(toy_run("mor"), optimizer="muon")
    config = replace(config, runtime=replace(config.runtime, parallel="fsdp"))
    with pytest.raises(ConfigError) as found:
        validate(config)
    assert found.value.setting == "runtime.parallel"
