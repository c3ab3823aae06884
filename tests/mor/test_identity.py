"""What gives a run a new id, and what does not because nothing depends on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mor.config import Config, replace_at
from mor.identity import identity, run_id, trunk_id
from mor.model.transformer import Transformer
from mor.train.schedule import schedule

# (architecture, what is set first, a setting, a value): the value changes nothing
DEAD: list[tuple[str, dict[str, Any], str, Any]] = [
    ("vanilla", {}, "model.sharing", "cycle"),
    ("vanilla", {}, "model.block_layers", 2),
    ("vanilla", {}, "model.kv", "shared"),
    ("vanilla", {}, "model.kv_share", 3),
    ("vanilla", {}, "model.router.alpha", 0.7),
    ("vanilla", {}, "train.warmup_recursions", 2),
    ("recursive", {}, "model.router.alpha", 0.7),
    ("recursive", {}, "model.block_layers", 1),  # (5 - 2) / 3
    ("recursive", {}, "model.relaxation.rank", 3),
    ("recursive", {"model.relaxation.type": "lora"}, "model.relaxation.prompt_length", 3),
    ("mor", {}, "model.capacity", [1.0, 2 / 3, 1 / 3]),
    ("mor", {}, "model.kv_share", 3),
    ("mor", {}, "model.router.balance_coeff", 0.7),
    ("mor", {}, "model.router.bias_update_rate", 0.7),
    ("mor", {"model.router.sampling": "aux_router"}, "model.router.aux_coeff", 0.7),
    ("mor", {"model.router.gating": "plain"}, "model.router.alpha", 0.7),
    ("mor", {"model.router.gating": "plain"}, "model.router.activation", "tanh"),
    ("mor_token", {}, "model.router.aux_coeff", 0.7),
    ("mor_token", {}, "model.router.bias_update_rate", 0.7),
    ("mor_token", {"model.router.balancing": "loss_free"}, "model.router.balance_coeff", 0.7),
    ("mor", {"train.schedule": "cosine"}, "train.cooldown_fraction", 0.5),
    ("mor", {"train.warmup_steps": 2}, "train.warmup_budget", 1e9),
]
RANDOM = {"model.router.network": "random", "model.router.activation": "none"}
DEAD += [
    ("mor", RANDOM, "model.router.temperature", 0.7),
    ("mor", RANDOM, "model.router.aux_coeff", 0.7),
    ("mor_token", RANDOM, "model.router.balance_coeff", 0.7),
]

ALIVE: list[tuple[str, str, Any]] = [
    ("vanilla", "model.init_std", 0.03),
    ("vanilla", "model.kv", "cycle"),
    ("recursive", "model.sharing", "cycle"),
    ("recursive", "model.n_recursions", 2),
    ("recursive", "model.block_layers", 2),
    ("recursive", "model.kv", "shared"),
    ("recursive", "model.relaxation.type", "lora"),
    ("mor", "model.capacity", [1.0, 0.5, 0.25]),
    ("mor", "model.router.alpha", 0.7),
    ("mor", "model.router.aux_coeff", 0.7),
    ("mor", "model.router.sampling", "aux_router"),
    ("mor", "model.router.gating", "plain"),
    ("mor_token", "model.router.balance_coeff", 0.7),
    ("mor_token", "model.router.balancing", "loss_free"),
    ("mor", "train.cooldown_fraction", 0.5),
    ("mor", "train.warmup_steps", 2),
    ("mor", "budget", 1e9),
    ("mor", "seed", 1),
]


def _set(config: Config, settings: dict[str, Any]) -> Config:
    for name, value in settings.items():
        config = replace_at(config, name, value)
    return config


def _numbers(config: Config) -> list[torch.Tensor]:
    """Losses and gradients of a model under both routings, and the learning rates."""
    model = Transformer(config.model, config.size, config.data.vocab_size, seed=config.seed)
    tokens = torch.arange(64).view(2, 32) * 37 % 256
    out = model(tokens, tokens.roll(-1, 1), step=5)
    out.total_loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    if "balance_bias" in dict(model.named_buffers()):
        model.after_step(torch.tensor(out.routed.load), step=5)
        grads.append(model.balance_bias)
    causal = model.eval()(tokens, tokens.roll(-1, 1), routing="causal").loss.detach()
    plan = schedule(config)
    rates = torch.tensor([plan.factor(x * config.budget / 10) for x in range(10)])
    return [out.total_loss.detach(), causal, rates, *grads]


@pytest.mark.parametrize(
    ("architecture", "before", "setting", "value"), DEAD, ids=[f"{d[0]}-{d[2]}" for d in DEAD]
)
def test_a_setting_that_does_nothing_gives_no_new_id(
    toy_run: Any, architecture: str, before: dict[str, Any], setting: str, value: Any
) -> None:
    config = _set(toy_run(architecture, warmup_steps=None, warmup_budget=1e5), before)
    changed = _set(config, {setting: value})
    assert run_id(changed) == run_id(config)
    assert trunk_id(changed) == trunk_id(config)
    for one, other in zip(_numbers(config), _numbers(changed), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("architecture", "setting", "value"), ALIVE, ids=[f"{a[0]}-{a[1]}" for a in ALIVE]
)
def test_a_setting_that_matters_gives_a_new_id(
    toy_run: Any, architecture: str, setting: str, value: Any
) -> None:
    config = toy_run(architecture)
    assert run_id(_set(config, {setting: value})) != run_id(config)


def test_where_it_runs_is_no_part_of_the_id(toy_run: Any) -> None:
    config = toy_run("mor")
    moved = _set(config, {"runtime.micro_batch": 1, "runtime.threads": 2, "train.branch": False})
    assert identity(moved) == identity(config)
