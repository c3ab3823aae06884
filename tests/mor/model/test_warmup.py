"""What depends on the step: capacity and balance warm-up, and a random router."""

from __future__ import annotations

import pytest
import torch

from mor.model.routers import networks as routing
from mor.model.routers.expert_spec import selected
from tests.mor.model.naive import Naive
from tests.mor.model.variants import EXPERT, RANDOM, TOKEN, build, draw, expert, token

LENGTH = 24


@pytest.mark.parametrize("step", [0, 4, 8, 9, None])
@pytest.mark.parametrize("name", ["expert-warmup", "token-warmup", "expert-random", "token-random"])
def test_a_step_equals_the_naive_reference(name: str, step: int | None) -> None:
    model = build((EXPERT | TOKEN)[name])
    tokens, targets = draw(2, LENGTH)
    out = model(tokens, targets, step=step)
    torch.testing.assert_close(out.logits, Naive(model, step=step)(tokens), atol=2e-4, rtol=1e-4)


def test_capacity_falls_to_the_target_and_the_counts_with_it() -> None:
    model = build(EXPERT["expert-warmup"])
    tokens, _ = draw(2, LENGTH)
    taken = [model(tokens, step=step).routed.tokens[2] for step in range(12)]
    assert taken == sorted(taken, reverse=True)
    assert taken[0] > 0.9 * 2 * LENGTH
    assert taken[9:] == [2 * selected(1 / 3, LENGTH)] * 3
    assert model(tokens).routed.tokens[2] == taken[-1]


def test_before_balance_warms_up_every_token_takes_every_recursion() -> None:
    router = {"balancing": "loss_free", "balance_warmup_steps": 3, "bias_update_rate": 0.5}
    model = build(token(router))
    tokens, _ = draw(2, LENGTH)
    for step in (0, 1):
        assert model(tokens, step=step).routed.load == [0, 0, 2 * LENGTH]
        assert model.router_load(tokens, step).tolist() == [0, 0, 2 * LENGTH]
        model.after_step(torch.tensor([0, 0, 2 * LENGTH]), step)
    assert model.balance_bias.tolist() == [0, 0, 0]
    assert model(tokens, step=2).routed.load == model(tokens).routed.load != [0, 0, 2 * LENGTH]
    model.after_step(torch.tensor([0, 0, 2 * LENGTH]), 2)
    assert model.balance_bias.tolist() == [0.5, 0.5, -0.5]


@pytest.mark.parametrize("name", ["expert-warmup", "token-warmup", "expert-random"])
def test_training_must_say_which_step_it_is(name: str) -> None:
    model, (tokens, targets) = build((EXPERT | TOKEN)[name]).train(), draw(2, LENGTH)
    with pytest.raises(ValueError, match="give step"):
        model(tokens, targets)
    model(tokens, targets, step=0).total_loss.backward()
    with torch.no_grad():
        model(tokens, targets)


def test_random_scores_are_uniform_and_depend_on_everything_they_are_given() -> None:
    positions = torch.arange(4096)
    scores = routing.random_scores(positions, seed=1, step=7, first=0, count=3)
    assert scores.min() >= 0
    assert scores.max() < 1
    counts = torch.histc(scores, bins=16, min=0, max=1) / scores.numel()
    assert (counts - 1 / 16).abs().max() < 0.008
    for other in ({"seed": 2}, {"step": 8}, {"first": 1}):
        moved = routing.random_scores(positions, **{"seed": 1, "step": 7, "first": 0, **other})
        both = torch.stack((moved[:, 0], scores[:, 0]))
        assert abs(torch.corrcoef(both)[0, 1]) < 0.05
    again = routing.random_scores(positions[100:], seed=1, step=7, first=0, count=3)
    assert torch.equal(again, scores[100:])


def test_a_random_router_keeps_its_share_under_the_threshold_too() -> None:
    model = build(expert(RANDOM))
    tokens, targets = draw(1, 512)
    out = model(tokens, targets, routing="causal", step=3)
    shares = [n / 512 for n in out.routed.tokens]
    assert shares == pytest.approx([1, 2 / 3, 1 / 3], abs=0.06)
    assert model(tokens, targets).auxiliary == {}
    assert not torch.equal(model(tokens, step=1).routed.depths, model(tokens, step=2).routed.depths)
