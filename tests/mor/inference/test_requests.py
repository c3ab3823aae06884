"""Sampling, stop tokens, streaming, cancellation, confidence exits, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mor.config import ConfigError
from mor.inference import Engine, EngineError, Exits, Sampling, Settings
from mor.inference.sampling import allowed, choose
from mor.model.transformer import Transformer
from tests.mor.model.test_looped import looped
from tests.mor.model.variants import ALL, VOCAB, build

PROMPT = [3, 1, 4, 1, 5]
SMALL = Settings(max_batch=4, chunk=4, context=32, page=4)


def model_of(name: str = "expert") -> Transformer:
    return build(ALL[name], seed=1)


def test_sampled_tokens_depend_on_the_seed_only() -> None:
    model = model_of()
    asked = Sampling(max_new=12, temperature=1.0, top_k=20, top_p=0.95, seed=3)
    (alone,) = Engine(model, SMALL).generate([PROMPT], asked)
    others = [Sampling(max_new=9, temperature=2.0, seed=seed) for seed in range(5)]
    tight = Settings(max_batch=4, chunk=2, context=32, page=2, pool_tokens=24)
    engine = Engine(model, tight)
    among = engine.generate([[7, 8]] * 5 + [PROMPT], [*others, asked])
    assert engine.statistics().preemptions > 0
    assert among[-1].tokens == alone.tokens
    assert len({tuple(one.tokens) for one in among[:5]}) > 1


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["expert", "expert-hybrid", "token-shared", "vanilla", "recursive-lora"]),
    order=st.permutations(range(4)),
    batch=st.integers(1, 4),
    chunk=st.integers(1, 6),
    room=st.integers(0, 30),
)
def test_samples_do_not_depend_on_the_engine(
    name: str, order: list[int], batch: int, chunk: int, room: int
) -> None:
    model = model_of(name)
    asked = [[7, 8], PROMPT, [2], [9, 9, 9]]
    each = [Sampling(max_new=8, temperature=1.5, top_p=0.9, seed=10 + i) for i in range(4)]
    small = Settings(max_batch=batch, chunk=chunk, context=16, page=1, pool_tokens=13 + room)
    engine = Engine(model, small)
    numbers = {i: engine.submit(asked[i], each[i]) for i in order}
    found = [list(engine.stream(numbers[i])) for i in range(4)]
    alone = [Engine(model, SMALL).generate([asked[i]], each[i])[0].tokens for i in range(4)]
    assert found == alone


def test_samples_have_the_probabilities_asked_for() -> None:
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0])
    (top,), (kept,) = allowed(logits[None], 3, [Sampling(temperature=2.0, top_k=3)])
    assert top.tolist() == [0, 2, 1]
    torch.testing.assert_close(kept, torch.tensor([1.0, 0.5, 0.0]).double().softmax(0))
    each = [Sampling(temperature=1.0, top_p=p) for p in (0.7, 0.1, 0.999, 1.0)]
    tokens, held = allowed(logits.expand(4, -1), 4, each)
    assert tokens.tolist() == [[0, 2, 1, 3]] * 4
    assert (held > 0).sum(-1).tolist() == [2, 1, 4, 4]
    for top_k in (None, 4):  # all tokens in either case, drawn together or one by one
        asked = [Sampling(temperature=1.0, top_k=top_k, seed=s) for s in range(4000)]
        draws = choose(logits.expand(4000, -1), asked, [0] * 4000)
        share = torch.bincount(torch.tensor(draws), minlength=4) / 4000
        torch.testing.assert_close(share, logits.softmax(0), atol=0.03, rtol=0)


def test_of_equal_logits_the_first_is_the_likeliest() -> None:
    ties = torch.tensor([[1.0, -3.0, 1.0, 0.0, -3.0, 1.0, -0.5, float("-inf")]])
    expected = [0, 2, 5, 3, 6, 1, 4, 7]
    for count in range(1, 9):
        tokens, _ = allowed(ties, count, [Sampling(temperature=1.0, top_k=count)])
        assert tokens[0].tolist() == expected[:count]


@pytest.mark.parametrize("limits", [{}, {"top_k": 3}, {"top_p": 0.9}, {"top_k": 100}])
def test_extreme_temperatures_are_greedy_and_even(limits: dict) -> None:
    logits = torch.tensor([[3.0, 7.0, -2.0, 6.9]])
    cold = [Sampling(temperature=t, seed=s, **limits) for t in (1e-300, 1e-6) for s in range(50)]
    assert set(choose(logits.expand(100, -1), cold, [0] * 100)) == {1}
    hot = [Sampling(temperature=1e300, seed=s, **limits) for s in range(200)]
    allowed_then = {0, 1, 3} if limits.get("top_k") == 3 else {0, 1, 2, 3}
    assert set(choose(logits.expand(200, -1), hot, [0] * 200)) == allowed_then


def test_a_draw_does_not_depend_on_the_others() -> None:
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    asked = [
        Sampling(),
        Sampling(temperature=1.0, seed=1),
        Sampling(temperature=0.5, seed=2),
        Sampling(temperature=2.0, top_k=5, seed=3),
        Sampling(temperature=1.0, top_p=0.5, seed=4),
        Sampling(temperature=1.0, seed=1),
    ]
    together = choose(logits, asked, range(6))
    assert together == [choose(logits[i : i + 1], asked[i : i + 1], [i])[0] for i in range(6)]
    assert together[0] == int(logits[0].argmax())


def test_a_stop_token_ends_a_request_and_a_stream_gives_what_generate_gives() -> None:
    engine = Engine(model_of(), SMALL)
    (whole,) = engine.generate([PROMPT], Sampling(max_new=8))
    assert whole.reason == "length"
    stop = whole.tokens[4]
    (short,) = engine.generate([PROMPT], Sampling(max_new=8, stop=(stop,)))
    assert short.tokens == whole.tokens[: whole.tokens.index(stop) + 1]
    assert short.reason == "stop"
    number, other = (engine.submit(PROMPT, Sampling(max_new=8)) for _ in range(2))
    assert list(engine.stream(number)) == whole.tokens
    assert list(engine.stream(other)) == whole.tokens
    assert not engine.busy


@pytest.mark.parametrize("ticks", [0, 1, 3, 6])
def test_a_cancelled_request_leaves_nothing_and_disturbs_nobody(ticks: int) -> None:
    engine = Engine(model_of("expert-hybrid"), SMALL)
    (alone,) = engine.generate([PROMPT], Sampling(max_new=8))
    kept, gone = (engine.submit(PROMPT, Sampling(max_new=8)) for _ in range(2))
    for _ in range(ticks):
        engine.step()
    engine.cancel(gone)
    assert list(engine.stream(kept)) == alone.tokens
    assert engine.result(gone).reason == "cancelled"
    engine.forget(gone)
    with pytest.raises(EngineError):
        engine.result(gone)
    engine.submit([1], Sampling(max_new=1))
    while engine.busy:
        engine.step()
    assert all(pool.used == 0 for pool in engine.pools)
    assert len(engine.runner.states.free) == len(engine.runner.states.x)


WRONG: list[tuple[object, dict, str]] = [
    ([], {}, "prompt"),
    ([VOCAB], {}, "prompt"),
    ([-1], {}, "prompt"),
    (["a"], {}, "prompt"),
    ([1, 1.7], {}, "prompt"),
    ([1, None], {}, "prompt"),
    ([True], {}, "prompt"),
    ([[1, 2]], {}, "prompt"),
    ("abc", {}, "prompt"),
    (5, {}, "prompt"),
    (None, {}, "prompt"),
    (torch.tensor(1), {}, "prompt"),
    (torch.tensor([[1], [2]]), {}, "prompt"),
    (np.array([1.0, 2.0]), {}, "prompt"),
    ([1] * 30, {"max_new": 8}, "context"),
    ([1] * 10, {"max_new": 10}, "pool_tokens"),
    ([1], {"max_new": 0}, "max_new"),
    ([1], {"max_new": 2.5}, "max_new"),
    ([1], {"max_new": True}, "max_new"),
    ([1], {"max_new": "3"}, "max_new"),
    ([1], {"max_new": None}, "max_new"),
    ([1], {"temperature": -1.0}, "temperature"),
    ([1], {"temperature": float("nan")}, "temperature"),
    ([1], {"temperature": 10**400}, "temperature"),
    ([1], {"temperature": "x"}, "temperature"),
    ([1], {"top_k": 0}, "top_k"),
    ([1], {"top_k": 2.5, "temperature": 1.0}, "top_k"),
    ([1], {"top_k": True, "temperature": 1.0}, "top_k"),
    ([1], {"top_p": 0.0}, "top_p"),
    ([1], {"top_p": "x"}, "top_p"),
    ([1], {"seed": "x"}, "seed"),
    ([1], {"seed": 1.5}, "seed"),
    ([1], {"stop": 5}, "stop"),
    ([1], {"stop": None}, "stop"),
    ([1], {"stop": "abc"}, "stop"),
    ([1], {"stop": (1.5,)}, "stop"),
    ([1], {"score": "yes"}, "score"),
    ([1], {"score": True, "score_from": 1.5}, "score_from"),
]


@pytest.mark.parametrize(("prompt", "changes", "named"), WRONG)
def test_a_wrong_request_is_refused_and_the_others_go_on(
    prompt: Any, changes: dict, named: str
) -> None:
    engine = Engine(model_of(), Settings(context=32, pool_tokens=16))
    running = engine.submit(PROMPT, Sampling(max_new=4))
    engine.step()
    with pytest.raises(EngineError, match=named) as refused:
        engine.submit(prompt, Sampling(**({"max_new": 4} | changes)))
    assert len(str(refused.value).splitlines()) == 1
    assert list(engine.requests) == [running]
    assert len(list(engine.stream(running))) == 4


WHOLE = [int, np.int64, np.uint8, torch.tensor]
NUMBERS = [float, np.float32, np.float64, torch.tensor]


@settings(deadline=None, max_examples=12)
@given(whole=st.sampled_from(WHOLE), real=st.sampled_from(NUMBERS), truth=st.booleans())
def test_numbers_of_numpy_and_torch_are_numbers(whole: Any, real: Any, truth: bool) -> None:
    model = model_of()
    asked = Sampling(
        max_new=5, temperature=0.5, top_k=9, top_p=0.75, seed=2, stop=(7,), score=truth
    )
    like = Sampling(
        max_new=whole(5), temperature=real(0.5), top_k=whole(9), top_p=real(0.75), seed=whole(2),
        stop=[whole(7)], score=np.bool_(truth), score_from=whole(1),  # type: ignore[arg-type]
    )  # fmt: skip
    assert like.checked() == asked
    for prompt in ([whole(t) for t in PROMPT], np.array(PROMPT), torch.tensor(PROMPT)):
        assert Engine(model, SMALL).generate([prompt], like) == Engine(model, SMALL).generate(
            [PROMPT], asked
        )


def test_one_prompt_in_place_of_several_is_refused() -> None:
    engine = Engine(model_of(), SMALL)
    for prompts, sampling in ((PROMPT, None), ([PROMPT], [5]), ([PROMPT, ["a"]], None)):
        with pytest.raises(EngineError):
            engine.generate(prompts, sampling)  # type: ignore[arg-type]
    assert not engine.requests
    assert not engine.busy


def test_a_wrong_engine_is_refused() -> None:
    model = model_of()
    for wrong in ({"max_batch": 0}, {"pool_tokens": 3}, {"kv_bytes": 10}):
        with pytest.raises(EngineError, match=next(iter(wrong))):
            Engine(model, Settings(**wrong))
    for limit in (0, 4):
        with pytest.raises(ConfigError, match="max_recursions"):
            Engine(model, SMALL, max_recursions=limit)
    with pytest.raises(ConfigError, match="max_recursions"):
        Engine(build(looped()), SMALL, max_recursions=0)
    with pytest.raises(ConfigError, match="max_recursions"):
        Engine(model_of("vanilla"), SMALL, max_recursions=2)
    with pytest.raises(ConfigError, match="confidence"):
        Engine(model, SMALL, exits=Exits("kl", 0.1))
    for rule, threshold, named in (("margin", 0.1, "rule"), ("kl", "x", "threshold")):
        with pytest.raises(EngineError, match=named):
            Engine(build(looped()), SMALL, exits=Exits(rule, threshold))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["expert", "token-shared", "looped"])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_fewer_recursions_are_those_of_the_model(name: str, limit: int) -> None:
    model = build({**ALL, "looped": looped()}[name], seed=1)
    tokens = torch.tensor([PROMPT])
    whole = model(tokens, routing="causal", max_recursions=limit)
    engine = Engine(model, SMALL, max_recursions=limit)
    (found,) = engine.generate([PROMPT], Sampling(max_new=0, score=True))
    wanted = whole.logits[0, :-1].log_softmax(-1)[range(4), PROMPT[1:]]
    torch.testing.assert_close(torch.tensor(found.logprobs), wanted.detach(), atol=3e-5, rtol=1e-4)
    assert found.depths == whole.routed.depths[0].tolist()


@pytest.mark.parametrize("rule", ["entropy", "kl"])
@pytest.mark.parametrize("kv", ["recursion", "shared"])
def test_exits_by_confidence(rule: str, kv: str) -> None:
    """No threshold: every loop. Infinitely lax: one loop. Between: the others' tokens do not
    matter."""
    model = build(looped(kv=kv, n_recursions=4), seed=1)
    asked = [PROMPT, [2, 7], [9, 9, 9]]
    plain = Engine(model, SMALL).generate(asked, Sampling(max_new=9))
    never = Engine(model, SMALL, exits=Exits(rule, 0.0)).generate(asked, Sampling(max_new=9))
    assert [one.tokens for one in never] == [one.tokens for one in plain]
    always = Engine(model, SMALL, exits=Exits(rule, 1e9)).generate(asked, Sampling(max_new=9))
    assert {depth for one in always for depth in one.depths} == {1}
    values = torch.linspace(0.01, 3.0, 40).tolist()
    for value in values:
        exits = Exits(rule, value)
        together = Engine(model, SMALL, exits=exits).generate(asked, Sampling(max_new=9))
        if len({depth for one in together for depth in one.depths}) > 1:
            break
    else:
        raise AssertionError("no threshold splits the tokens")
    alone = [Engine(model, SMALL, exits=exits).generate([p], Sampling(max_new=9))[0] for p in asked]
    assert [one.tokens for one in alone] == [one.tokens for one in together]
    assert [one.depths for one in alone] == [one.depths for one in together]
