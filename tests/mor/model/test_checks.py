"""Models that cannot be built are refused in one sentence: setting, value, what to type."""

from __future__ import annotations

import pytest

from mor.config import ConfigError, ModelConfig, RelaxationConfig
from mor.model.components import check_model
from tests.mor.model.variants import ALL, SIZE, expert, recursive, relax, token

RANDOM = {"network": "random", "activation": "none"}
WRONG = {
    "kv": (recursive(kv="both"), "model.kv=both", "recursion, shared, hybrid"),
    "hybrid without choice": (recursive(kv="hybrid"), "model.kv=hybrid", "model=mor"),
    "hybrid by token": (token(kv="hybrid"), "model.kv=hybrid", "expert choice"),
    "hybrid in sequence": (
        expert(kv="hybrid", sharing="sequence", n_recursions=2),
        "model.kv=hybrid",
        "model.sharing=cycle",
    ),
    "reuse when routed": (expert(kv="cycle"), "model.kv=cycle", "model.kv=shared"),
    "reuse when recursive": (recursive(kv="cycle"), "model.kv=cycle", "model.kv=shared"),
    "reuse of one": (
        ModelConfig("v", kv="cycle", kv_share=1),
        "kv_share=1",
        "type model.kv_share=2",
    ),
    "reuse of many": (ModelConfig("v", kv="sequence", kv_share=9), "kv_share=9", "size.n_layers=8"),
    "relaxation": (recursive(relaxation=relax("lore")), "relaxation.type=lore", "lora"),
    "rank above the width": (
        recursive(relaxation=RelaxationConfig("dora", rank=33)),
        "model.relaxation.rank=33",
        "size.d_model=32",
    ),
    "relaxed vanilla": (
        ModelConfig("v", relaxation=relax("lora")),
        "model.relaxation.type=lora",
        "model=recursive",
    ),
    "gating": (expert({"gating": "gated"}), "model.router.gating=gated", "weighted, plain"),
    "temperature": (expert({"temperature": 0.0}), "model.router.temperature=0.0", "positive"),
    "network": (expert({"network": "wide"}), "model.router.network=wide", "wide_mlp"),
    "softmax of one": (
        expert({"activation": "softmax"}),
        "model.router.activation=softmax",
        "choose sigmoid, tanh or none",
    ),
    "raw depths": (token({"activation": "none"}), "activation=none", "choose softmax or sigmoid"),
    "squashed random": (
        expert({"network": "random"}),
        "model.router.activation=sigmoid",
        "type model.router.activation=none",
    ),
    "predicted random": (
        expert(RANDOM | {"sampling": "aux_router"}),
        "model.router.sampling=aux_router",
        "type model.router.sampling=aux_loss",
    ),
    "biased random": (
        token(RANDOM | {"balancing": "loss_free"}),
        "model.router.balancing=loss_free",
        "type model.router.balancing=loss",
    ),
    "unlearned": (
        expert({"gating": "plain", "sampling": "aux_router"}),
        "model.router.gating=plain",
        "model.router.sampling=aux_loss",
    ),
    "unlearned depths": (
        token({"gating": "plain", "balancing": "loss_free"}),
        "model.router.gating=plain",
        "model.router.balancing=loss",
    ),
    "capacity warm-up by token": (
        token({"capacity_warmup_steps": 5}),
        "model.router.capacity_warmup_steps=5",
        "type model.router.capacity_warmup_steps=0",
    ),
    "balance warm-up by expert": (
        expert({"balance_warmup_steps": -1}),
        "model.router.balance_warmup_steps=-1",
        "type model.router.balance_warmup_steps=0",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_mistake_is_named_with_the_way_out(name: str) -> None:
    model, setting, instead = WRONG[name]
    with pytest.raises(ConfigError) as error:
        check_model(model, SIZE)
    message = str(error.value)
    assert setting in message
    assert instead in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ALL)
def test_every_variant_can_be_built(name: str) -> None:
    check_model(ALL[name], SIZE)
