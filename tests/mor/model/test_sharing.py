"""Tied layers are one parameter: the model holds what the layout says, and nothing twice."""

from __future__ import annotations

import pytest

from mor.config import ModelConfig, SizeConfig
from mor.flops import count_params
from mor.model.components import layout, shares
from mor.model.kv.spec import sources_of
from mor.model.transformer import Transformer
from tests.mor.model.variants import ALL, SIZE, VOCAB, build, expert, recursive

NINE = SizeConfig("nine", n_layers=9, d_model=32, n_heads=4, n_kv_heads=2, d_head=8, d_ff=48)


@pytest.mark.parametrize(
    ("sharing", "depths"),
    [
        ("cycle", (0, 1, 2) * 3),
        ("sequence", (0, 0, 0, 1, 1, 1, 2, 2, 2)),
        ("middle_cycle", (0, *(1, 2, 3) * 3, 4)),
        ("middle_sequence", (0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4)),
    ],
)
def test_the_papers_example(sharing: str, depths: tuple[int, ...]) -> None:
    assert layout(recursive(sharing=sharing), NINE).depths == depths


def numbers(model: Transformer, *pieces: str) -> int:
    """Parameters whose names hold one of these pieces."""
    return sum(
        p.numel() for name, p in model.named_parameters() if any(piece in name for piece in pieces)
    )


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_those_that_planning_counts(name: str) -> None:
    model = build(ALL[name])
    counted = count_params(model.model, SIZE, VOCAB)
    assert counted.embedding == numbers(model, "embed.")
    assert counted.attention == numbers(model, ".attention.")
    assert counted.mlp == numbers(model, ".mlp.")
    assert counted.norm == numbers(model, "norm.")
    assert counted.router == numbers(model, "routers.")
    assert counted.relaxation == numbers(model, "relaxation.")
    parameters = list(model.parameters())
    assert len(parameters) == len({p.data_ptr() for p in parameters})
    assert sum(p.numel() for p in parameters) == counted.total


D, KV = SIZE.d_model, SIZE.n_kv_heads * SIZE.d_head
BLOCK = 2 * 3  # layers in the block, recursions


@pytest.mark.parametrize(
    ("name", "relaxation"),
    [
        ("recursive-encoding", 3 * D),
        ("recursive-scaling", 3 * D),
        ("recursive-lora", BLOCK * 3 * (D + D + D + KV)),
        ("recursive-dora", BLOCK * (3 * (D + D + D + KV) + D + KV)),
        ("recursive-prompt", BLOCK * (2 * 5 * KV + 1)),
        ("recursive-shared-lora", BLOCK * 3 * (D + D) + 2 * 3 * (D + KV)),
    ],
)
def test_relaxations_by_hand(name: str, relaxation: int) -> None:
    """Rank 3, prompts of 5; with shared keys and values only recursion 1 has v to change."""
    assert count_params(ALL[name], SIZE, VOCAB).relaxation == relaxation


@pytest.mark.parametrize(
    ("kv", "share", "sources"),
    [
        ("cycle", 2, (0, 1, 2, 3, 0, 1, 2, 3)),
        ("cycle", 3, (0, 1, 2, 0, 1, 2, 0, 1)),
        ("sequence", 2, (0, 0, 2, 2, 4, 4, 6, 6)),
        ("sequence", 3, (0, 0, 0, 3, 3, 3, 6, 6)),
        ("middle_cycle", 2, (0, 1, 2, 3, 1, 2, 3, 7)),
        ("recursion", 2, tuple(range(8))),
    ],
)
def test_whose_keys_and_values_a_depth_reads(kv: str, share: int, sources) -> None:
    assert sources_of(ModelConfig("v", kv=kv, kv_share=share), 8) == sources


def test_capacity_warms_up_as_a_cosine() -> None:
    model = expert({"capacity_warmup_steps": 4})
    quarter = (1 + 0.5**0.5) / 2
    expected = [1.0, 2 / 3 + quarter / 3, 1 / 3 + quarter * 2 / 3]
    assert shares(model, SIZE, 0) == pytest.approx(expected)
    assert shares(model, SIZE, 1) == pytest.approx([1.0, 5 / 6, 2 / 3])
    assert shares(model, SIZE, 3) == shares(model, SIZE) == shares(model, SIZE, 1000)
