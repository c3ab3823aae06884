"""Mixture-of-Depths and looped models through a whole run: resume, trunks, validation, metering."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger.folder import RunFolder
from mor.config import ModelConfig, RouterConfig
from mor.flops import run_cost
from mor.identity import identity
from mor.model.recurrence.looped_spec import LoopedOptions
from mor.model.routers.mod_spec import ModOptions
from mor.train.run import Hooks, train_run, train_trunk
from mor.train.schedule import schedule
from tests.mor.train.interrupted import ends_with_the_same_bits
from tests.mor.train.test_run import final

MODELS = {
    "mod": ModelConfig("mod", options=ModOptions(), router=RouterConfig("mod", alpha=1.0)),
    "looped": ModelConfig(
        "looped",
        "looped",
        3,
        options=LoopedOptions("concat", "poisson", backprop_recursions=2),
    ),
}


def config_of(toy_run, name: str, steps: int):
    config = replace(toy_run("vanilla"), model=MODELS[name])
    return replace(config, budget=steps * run_cost(config).step_flops["paper"])


@pytest.mark.parametrize("name", MODELS)
def test_an_interrupted_run_ends_with_the_same_bits(name: str, toy_run, tmp_path) -> None:
    config = config_of(toy_run, name, 24)
    one, two = ends_with_the_same_bits(config, tmp_path)
    assert (one.loss, one.flops) == (two.loss, two.flops)


@pytest.mark.parametrize("name", MODELS)
def test_a_trunk_with_its_cooldown_equals_a_run_from_scratch(name, toy_run, tmp_path) -> None:
    config = config_of(toy_run, name, 20)
    trunk, cooled = RunFolder(tmp_path / "trunk"), RunFolder(tmp_path / "cooled")
    train_trunk(config, trunk, Hooks())
    train_run(config, cooled, trunk.plateau(schedule(config).plateau_end), Hooks())
    train_run(config, RunFolder(tmp_path / "whole"), None, Hooks())
    assert final(tmp_path / "cooled") == final(tmp_path / "whole")


def test_a_looped_run_is_validated_at_one_to_twice_its_depth(toy_run, tmp_path) -> None:
    config, folder = config_of(toy_run, "looped", 20), RunFolder(tmp_path / "run")
    train_run(config, folder, None, Hooks())
    result = folder.result()
    assert result is not None
    by_depth = result.extra["nll_by_depth"]
    assert len(by_depth) == 6
    assert by_depth[2] == result.loss["val_nll_causal"]
    assert len(set(by_depth)) == 6
    spent = result.flops.extra
    assert spent["exact"] < 3 * spent["paper"] * 1.5  # loops without a backward cost their forward
    assert result.flops.spent == pytest.approx(config.budget, rel=0.15)


def test_settings_of_a_component_are_part_of_its_identity_alone(toy_run) -> None:
    looped = identity(config_of(toy_run, "looped", 5))["model"]
    assert (looped["injection"], looped["backprop_recursions"]) == ("concat", 2)
    assert "injection" not in identity(toy_run("mor"))["model"]
