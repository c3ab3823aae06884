"""Scores are those of the causal forward pass over each window alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mor.evaluate.scoring import CausalScorer, Window, windows
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


@pytest.mark.parametrize("name", ALL)
def test_a_batch_scores_each_window_as_if_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mor.evaluate.scoring.FORWARD_TOKENS", 40)  # several batches
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
    scored = CausalScorer(model, 12, FP32).score(found)
    for window, one in zip(found, scored, strict=True):
        logprob, greedy = alone(model, window)
        assert one.logprob == pytest.approx(logprob, abs=2e-4)
        assert one.greedy == greedy
    assert scored[5].greedy


@pytest.mark.parametrize("name", ["vanilla", "expert-hybrid", "token", "looped-add", "mod-half"])
def test_generation_is_greedy_and_stops(name: str) -> None:
    model = build(ALL[name], seed=1).eval()
    scorer, prompt = CausalScorer(model, 32, FP32), [3, 1, 4, 1]
    wanted = list(prompt)
    for _ in range(8):
        with torch.no_grad():
            wanted.append(
                int(model(torch.tensor([wanted]), routing="causal").logits[0, -1].argmax())
            )
    assert scorer.generate(prompt, 8, lambda new: False) == wanted[4:]
    assert scorer.generate(prompt, 8, lambda new: len(new) == 3) == wanted[4:7]


def test_mean_recursions_count_what_is_read_and_no_padding() -> None:
    model = build(ALL["expert"]).eval()
    batch = [Window((1, 2, 3, 4, 5, 6), (9,)), Window((8, 9), (9,))]
    scorer = CausalScorer(model, 12, FP32)
    scorer.score(batch)
    with torch.no_grad():
        depths = [model(torch.tensor([w.read]), routing="causal").routed.depths for w in batch]
    assert scorer.mean_recursions == pytest.approx(sum(int(d.sum()) for d in depths) / 8)
    vanilla = CausalScorer(build(ALL["vanilla"]), 12, FP32)
    vanilla.score(batch)
    assert vanilla.mean_recursions is None
