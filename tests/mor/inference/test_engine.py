"""Greedy output of the engine is that of the causal forward pass, whatever else is batched."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mor.config import ModelConfig
from mor.inference import Engine, Sampling, Settings
from mor.inference.decode import Decoder
from mor.inference.graphs import bucket
from mor.model.transformer import Transformer
from tests.mor.model.test_looped import looped
from tests.mor.model.test_mod import MODELS as MODS
from tests.mor.model.variants import ALL, SEPARATOR, VOCAB, build

KINDS: dict[str, ModelConfig] = {
    **ALL,
    **{f"mod-{name}": model for name, model in MODS.items()},
    **{f"looped-{kind}": looped(kind) for kind in ("add", "concat", "gate")},
    "looped-shared": looped(kv="shared"),
}
NEW = 7


def prompts(seed: int, count: int) -> list[list[int]]:
    draw = random.Random(seed)
    made = [[draw.randrange(VOCAB) for _ in range(draw.randint(1, 13))] for _ in range(count)]
    made[0] = [3, SEPARATOR, 5, 1]
    return made


def naive(model: Transformer, asked: Sequence[Sequence[int]]) -> list[list[int]]:
    """The whole causal forward again for each token, without a cache."""
    found = []
    for prompt in asked:
        tokens = list(prompt)
        for _ in range(NEW):
            with torch.no_grad():
                logits = model(torch.tensor([tokens]), routing="causal").logits
            tokens.append(int(logits[0, -1].argmax()))
        found.append(tokens[len(prompt) :])
    return found


def served(model: Transformer, asked: list[list[int]], engine: Engine, seed: int) -> list:
    """The same from the engine, requests arriving at random ticks."""
    draw, numbers = random.Random(seed), []
    order = list(range(len(asked)))
    draw.shuffle(order)
    for i in order:
        numbers.append((i, engine.submit(asked[i], Sampling(max_new=NEW))))
        for _ in range(draw.randint(0, 4)):
            engine.step()
    while engine.busy:
        engine.step()
    return [engine.result(number) for _, number in sorted(numbers)]


@pytest.mark.parametrize("name", KINDS)
def test_greedy_output_is_the_reference(name: str) -> None:
    model, asked = build(KINDS[name], seed=1), prompts(4, 5)
    expected = naive(model, asked)
    for depthwise, graphs in product((True, False), (True, False)):
        small = Settings(
            max_batch=3,
            chunk=4,
            context=32,
            page=2,
            pool_tokens=26,
            depthwise=depthwise,
            graphs=graphs,
        )
        engine = Engine(model, small)
        assert [one.tokens for one in served(model, asked, engine, 5)] == expected
        assert all(pool.used == 0 for pool in engine.pools)
        assert len(engine.runner.states.free) == len(engine.runner.states.x)


def test_single_tokens_run_in_steps_of_few_shapes() -> None:
    model, asked = build(KINDS["expert"], seed=1), prompts(3, 7)
    engine = Engine(model, Settings(max_batch=7, chunk=4, context=32, graphs=True))
    served(model, asked, engine, 5)
    assert engine.runner.graphs is not None
    assert 3 <= len(engine.runner.graphs.made) <= 3 * 5  # first, shared, last; 1, 2, 3, 4 or 6, 8


@pytest.mark.parametrize("least", [1, 64])
def test_a_bucket_is_a_third_empty_at_most(least: int) -> None:
    sizes = [bucket(n, least) for n in range(least, 1000)]
    assert sizes == sorted(sizes)
    assert all(n <= size < 1.5 * n for n, size in enumerate(sizes, least))
    assert len(set(sizes)) < 22


@pytest.mark.parametrize("name", ["vanilla", "expert", "token-shared", "recursive-dora",
                                  "expert-hybrid", "looped-concat", "mod-half"])  # fmt: skip
@pytest.mark.parametrize("graphs", [False, True])
def test_bf16_is_the_forward_pass_under_autocast(name: str, graphs: bool) -> None:
    """A token near a router's threshold may go the other way: so most tokens, not all."""
    model, asked = build(KINDS[name], seed=1), prompts(2, 4)
    made = Settings(max_batch=4, chunk=1, context=32, page=4, bf16=True, graphs=graphs)
    engine = Engine(model, made)
    assert {k.dtype for pool in engine.pools for k in pool.keys.values()} == {torch.bfloat16}
    found = engine.generate(asked, Sampling(max_new=0, score=True))
    near = []
    for tokens, one in zip(asked, found, strict=True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = model(torch.tensor([tokens]), routing="causal").logits[0]
        wanted = logits[:-1].float().log_softmax(-1)[range(len(tokens) - 1), tokens[1:]]
        near += ((torch.tensor(one.logprobs) - wanted).abs() < 0.02).tolist()
    assert sum(near) >= 0.9 * len(near)


@pytest.mark.parametrize("name", KINDS)
def test_scores_and_depths_are_those_of_the_reference(name: str) -> None:
    model, asked = build(KINDS[name], seed=1), prompts(2, 3)
    engine = Engine(model, Settings(max_batch=2, chunk=5, context=32, page=4))
    found = engine.generate(asked, Sampling(max_new=0, score=True))
    for tokens, one in zip(asked, found, strict=True):
        decoder = Decoder(model, 1)
        steps = [decoder.step(torch.tensor([t])) for t in tokens]
        logits = torch.cat([step.logits[0] for step in steps])
        wanted = logits[:-1].log_softmax(-1)[range(len(tokens) - 1), tokens[1:]]
        torch.testing.assert_close(torch.tensor(one.logprobs), wanted, atol=3e-5, rtol=1e-4)
        assert one.depths == torch.cat([step.routed.depths[0] for step in steps]).tolist()


MIXES = [
    "expert-hybrid",
    "expert",
    "expert-shared",
    "token-shared-documents",
    "vanilla",
    "recursive-straddling",
    "mod-half",
    "looped-gate",
    "expert-first-too-shared",
    "expert-aux-router",
    "expert-hybrid-lora",
    "token",
    "vanilla-cycle-2",
    "mod-aux-router",
    "looped-shared",
]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(MIXES),
    seed=st.integers(0, 1000),
    batch=st.integers(1, 6),
    chunk=st.integers(1, 9),
    page=st.integers(1, 5),
    room=st.integers(0, 40),
    graphs=st.booleans(),
)
def test_output_is_independent_of_the_engine(
    name: str, seed: int, batch: int, chunk: int, page: int, room: int, graphs: bool
) -> None:
    model, asked = build(KINDS[name], seed=2), prompts(seed, 4)
    made = Settings(
        max_batch=batch,
        chunk=chunk,
        context=20,
        page=page,
        pool_tokens=20 + room,
        graphs=graphs,
    )
    one = Engine(model, made)
    assert [c.tokens for c in served(model, asked, one, seed)] == naive(model, asked)


@pytest.mark.parametrize("name", MIXES)
def test_preempted_requests_come_out_as_if_they_had_not_been(name: str) -> None:
    model, asked = build(KINDS[name], seed=1), [[5, 3], [1, 2], [8, 9, 4], [6]]
    tight = Settings(max_batch=4, chunk=3, context=16, page=1, pool_tokens=13)
    engine = Engine(model, tight)
    numbers = [engine.submit(prompt, Sampling(max_new=NEW)) for prompt in asked]
    while engine.busy:
        engine.step()
    assert engine.statistics().preemptions > 0
    assert [engine.result(number).tokens for number in numbers] == naive(model, asked)
    assert all(pool.used == 0 for pool in engine.pools)


def test_recursions_share_batches_and_an_exit_frees_its_place_at_once() -> None:
    """The block runs over tokens of different recursions, and over those alone that take it."""
    model, asked = build(KINDS["expert"], seed=1), prompts(5, 6)
    engine = Engine(model, Settings(max_batch=6, chunk=4, context=32, page=4))
    found = served(model, asked, engine, 5)
    statistics, counts = engine.statistics(), engine.runner.counts
    taken = [depth for one in found for depth in one.depths]
    assert counts.block_tokens == sum(taken)
    assert statistics.mean_depth == pytest.approx(sum(taken) / len(taken))
    assert 1 < statistics.mean_depth < 3
    assert statistics.mixed_depth_share > 0.3
    assert statistics.new_tokens == NEW * len(asked)
    assert 0 < statistics.peak_kv_bytes <= statistics.pool_bytes
