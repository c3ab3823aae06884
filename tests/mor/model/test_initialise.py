"""Which layers a tied model starts from, and that it does."""

from __future__ import annotations

import pytest
import torch

from mor.config import ConfigError, ModelConfig, SizeConfig
from mor.model.checks import INIT_METHODS
from mor.model.components import layout
from mor.model.initialise import initialise, sources
from mor.model.transformer import Transformer
from tests.mor.model.variants import EXPERT, SIZE, VOCAB, build, draw, expert, recursive, relax

EIGHT = layout(recursive(), SIZE)  # 1 + 2 x 3 + 1
SIX = layout(
    recursive(sharing="cycle"),
    SizeConfig("six", 6, d_model=8, n_heads=1, n_kv_heads=1, d_head=8, d_ff=8),
)
SEQUENCE = layout(recursive(sharing="middle_sequence"), SIZE)


@pytest.mark.parametrize(
    ("order", "way", "n_layers", "expected"),
    [
        (EIGHT, "stepwise", 8, {0: (0,), 1: (1,), 2: (6,), 3: (7,)}),
        (EIGHT, "lower", 8, {0: (0,), 1: (1,), 2: (2,), 3: (7,)}),
        (EIGHT, "upper", 8, {0: (0,), 1: (5,), 2: (6,), 3: (7,)}),
        (EIGHT, "average", 8, {0: (0,), 1: (1, 3, 5), 2: (2, 4, 6), 3: (7,)}),
        (SEQUENCE, "average", 8, {0: (0,), 1: (1, 2, 3), 2: (4, 5, 6), 3: (7,)}),
        (SIX, "stepwise", 6, {0: (0,), 1: (5,)}),
        (SIX, "average", 6, {0: (0, 2, 4), 1: (1, 3, 5)}),
        (SIX, "lower", 6, {0: (0,), 1: (1,)}),
        (SIX, "upper", 6, {0: (4,), 1: (5,)}),
        (EIGHT, "average", 6, {0: (0,), 1: (1, 2, 3), 2: (2, 3, 4), 3: (5,)}),
    ],
)
def test_sources(order, way: str, n_layers: int, expected) -> None:
    assert sources(way, order, n_layers) == expected


def test_random_sources_are_ordered_and_come_from_the_seed() -> None:
    drawn = [sources("random", EIGHT, 30, seed) for seed in range(20)]
    assert drawn[3] == sources("random", EIGHT, 30, 3)
    assert len({tuple(found.items()) for found in drawn}) > 10
    for found in drawn:
        assert found[0] == (0,)
        assert found[3] == (29,)
        assert 0 < found[1][0] < found[2][0] < 29


@pytest.mark.parametrize("way", INIT_METHODS)
def test_weights_are_those_of_the_sources(way: str) -> None:
    full = Transformer(ModelConfig("v", init_std=0.2), SIZE, VOCAB, seed=9)
    model = initialise(build(EXPERT["expert-shared-dora"]), full, way, seed=4)
    for layer, given in sources(way, model.layout, SIZE.n_layers, 4).items():
        for name, weight in model.layers[layer].named_parameters():
            mean = sum(dict(full.layers[i].named_parameters())[name] for i in given) / len(given)
            torch.testing.assert_close(weight, mean)
    assert torch.equal(model.embed.weight, full.embed.weight)
    router = build(EXPERT["expert-shared-dora"]).routers[1].weight
    assert torch.equal(model.routers[1].weight, router)


def test_relaxations_start_anew_at_the_new_weights() -> None:
    full = Transformer(ModelConfig("v", init_std=0.2), SIZE, VOCAB, seed=9)
    relaxed = initialise(Transformer(expert(relaxation=relax("dora")), SIZE, VOCAB), full, "lower")
    plain = initialise(Transformer(expert(), SIZE, VOCAB), full, "lower")
    tokens, _ = draw(2, 12)
    torch.testing.assert_close(relaxed(tokens).logits, plain(tokens).logits, atol=1e-5, rtol=1e-5)


def test_mistakes() -> None:
    full = build(ModelConfig("v"))
    with pytest.raises(ConfigError, match="choose one of stepwise"):
        initialise(build(recursive()), full, "stepwize")
    with pytest.raises(ConfigError, match="taken from a vanilla model"):
        initialise(build(recursive()), build(recursive()), "lower")
    with pytest.raises(ConfigError, match="deeper model"):
        sources("lower", EIGHT, 3)
