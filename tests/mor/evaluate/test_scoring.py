"""Scores are those of the causal forward pass over each window alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mor.evaluate.engine_scorer import Both, EngineScorer, scorer_of
from mor.evaluate.scoring import Asked, CausalScorer, Scorer, Window, windows
from mor.model.transformer import Transformer
from tests.mor.model.test_looped import looped
from tests.mor.model.test_mod import MODELS
from tests.mor.model.variants import ALL as MOST
from tests.mor.model.variants import SEPARATOR, VOCAB, build

LOOPED = {
    f"looped-{kind}": looped(kind, loops)
    for kind, loops in (("add", "fixed"), ("concat", "poisson"), ("gate", "fixed"))
}
ALL = MOST | LOOPED | {f"mod-{name}": model for name, model in MODELS.items()}

FP32 = torch.autocast("cpu", torch.bfloat16, enabled=False)
tokens = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30)


@given(before=tokens, after=tokens, context=st.integers(1, 12))
def test_windows_predict_each_token_once_within_the_context(
    before: list[int], after: list[int], context: int
) -> None:
    found = list(windows(before, after, context))
    assert [token for window in found for token in window.predict] == after
    everything, place = [*before, *after], len(before)
    for window in found:
        place += len(window.predict)
        assert 1 <= len(window.predict) <= len(window.read) <= context
        assert list(window.read) == everything[place - 1 - len(window.read) : place - 1]
    if len(after) <= context:  # as much as fits stands before what is scored
        assert len(found) == 1
        assert len(found[0].read) == min(context, len(everything) - 1)


@given(after=tokens, context=st.integers(1, 12))
def test_rolling_windows_are_the_harness_s(after: list[int], context: int) -> None:
    theirs = get_rolling_token_windows(after, SEPARATOR, context, 1)
    ours = windows([SEPARATOR], after, context)
    assert [(list(w.read), list(w.predict)) for w in ours] == list(theirs)
    disjoint = [
        make_disjoint_window(pair)[1]
        for pair in get_rolling_token_windows(after, SEPARATOR, context, 1)
    ]
    assert [token for each in disjoint for token in each] == after


def alone(model: Transformer, window: Window) -> tuple[float, bool]:
    """A window's score from one forward pass over it and nothing else."""
    with torch.no_grad():
        logits = model(torch.tensor([window.read]), routing="causal").logits[0]
    logits = logits[-len(window.predict) :]
    wanted = torch.tensor(window.predict)
    logprob = logits.log_softmax(-1)[range(len(wanted)), wanted].sum().item()
    return logprob, bool((logits.argmax(-1) == wanted).all())


def causal(model: Transformer, context: int) -> Scorer:
    return CausalScorer(model, context, FP32)


SCORERS = {"causal": causal, "engine": EngineScorer}


@pytest.mark.parametrize("kind", SCORERS)
@pytest.mark.parametrize("name", ALL)
def test_a_batch_scores_each_window_as_if_alone(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mor.evaluate.scoring.FORWARD_TOKENS", 40)  # several batches
    monkeypatch.setattr("mor.evaluate.engine_scorer.MOST", 3)
    monkeypatch.setattr("mor.evaluate.engine_scorer.FORWARD_TOKENS", 24)  # several chunks
    model = build(ALL[name]).eval()
    generator = torch.Generator().manual_seed(5)
    found = []
    for n in (3, 12, 7, 12, 1, 9, 5):
        drawn = torch.randint(VOCAB, (n + 1,), generator=generator).tolist()
        if n == 9:  # what the model says itself
            with torch.no_grad():
                drawn[-1] = int(
                    model(torch.tensor([drawn[:-1]]), routing="causal").logits[0, -1].argmax()
                )
        found.append(
            Window(tuple(drawn[:-1]), tuple(drawn[-(n + 1) // 2 :] if n != 9 else drawn[-1:]))
        )
    scored = SCORERS[kind](model, 12).score(found)
    for window, one in zip(found, scored, strict=True):
        logprob, greedy = alone(model, window)
        assert one.logprob == pytest.approx(logprob, abs=2e-4)
        assert one.greedy == greedy
    assert scored[5].greedy


@pytest.mark.parametrize("kind", SCORERS)
@pytest.mark.parametrize("name", ["vanilla", "expert-hybrid", "token", "looped-add", "mod-half"])
def test_generation_is_greedy_and_stops(name: str, kind: str) -> None:
    model = build(ALL[name], seed=1).eval()
    scorer, prompt = SCORERS[kind](model, 32), [3, 1, 4, 1]
    wanted = list(prompt)
    for _ in range(8):
        with torch.no_grad():
            wanted.append(
                int(model(torch.tensor([wanted]), routing="causal").logits[0, -1].argmax())
            )
    never = Asked(prompt, 8, lambda new: False)
    third = Asked(prompt, 8, lambda new: len(new) == 3)
    assert scorer.generate([never, third, never]) == [wanted[4:], wanted[4:7], wanted[4:]]
    assert scorer.generate([]) == []
    assert scorer.score([]) == []


def test_the_scorers_cut_and_sample_alike() -> None:
    model = build(ALL["expert"], seed=1).eval()
    long = [i % VOCAB for i in range(60)]  # more than the context
    asked = [
        Asked(long[:n], n_new, lambda new: len(new) == 9, temperature, seed=n)
        for n in (1, 20, 60)
        for n_new in (4, 12, 30)
        for temperature in (0.0, 1.5)
    ]
    found = [make(model, 24).generate(asked) for make in SCORERS.values()]
    assert found[0] == found[1]
    assert [len(new) for new in found[0]] == [min(one.n_new, 9) for one in asked]


@pytest.mark.parametrize("kind", SCORERS)
def test_mean_recursions_count_what_is_read_and_no_padding(kind: str) -> None:
    model = build(ALL["expert"]).eval()
    batch = [Window((1, 2, 3, 4, 5, 6), (9,)), Window((8, 9), (9,))]
    scorer = SCORERS[kind](model, 12)
    scorer.score(batch)
    with torch.no_grad():
        depths = [model(torch.tensor([w.read]), routing="causal").routed.depths for w in batch]
    assert scorer.mean_recursions == pytest.approx(sum(int(d.sum()) for d in depths) / 8)
    vanilla = SCORERS[kind](build(ALL["vanilla"]), 12)
    vanilla.score(batch)
    assert vanilla.mean_recursions is None


def test_the_engine_takes_what_it_computes_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(ALL["expert"]).eval()
    batch = [Window((1, 2, 3), (3, 8))]
    kinds = {}
    for width in (0, 10**6):
        monkeypatch.setattr("mor.evaluate.engine_scorer.NARROW", width)
        kinds[width] = scorer_of(model, 12, bf16=False)
        assert kinds[width].context == 12
    wide, narrow = kinds[0], kinds[10**6]
    assert isinstance(wide, EngineScorer)
    assert isinstance(narrow, Both)
    assert wide.score(batch)[0].logprob == pytest.approx(narrow.score(batch)[0].logprob, abs=2e-4)
    assert wide.mean_recursions == narrow.mean_recursions
    asked = [Asked([1, 2], 5, lambda new: False)]
    assert wide.generate(asked) == narrow.generate(asked)
    half = scorer_of(model, 12, bf16=True)
    assert isinstance(half, Both)
    assert isinstance(half.scores, CausalScorer)
    assert isinstance(half.continues, EngineScorer)
    assert half.continues.bf16


def test_a_scorer_stops_between_steps() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    scorer = EngineScorer(build(ALL["vanilla"]), 12, stop)
    with pytest.raises(KeyboardInterrupt):
        scorer.score([Window((1,), (2,))])
    with pytest.raises(KeyboardInterrupt):
        scorer.generate([Asked([1], 2, lambda new: False)])
