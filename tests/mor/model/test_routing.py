"""Choices, losses and balance of the routers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mor.config import RouterConfig
from mor.model.routers.expert import sampling_loss, top_tokens
from mor.model.routers.token import balancing_loss, choose_depth
from tests.mor.model.variants import TOKEN, build, draw, expert, token


@given(st.integers(1, 4), st.integers(1, 20), st.data())
def test_top_tokens_are_the_highest_of_each_sequence_in_order(
    batch: int, length: int, data
) -> None:
    k = data.draw(st.integers(1, length))
    order = [data.draw(st.permutations(range(length))) for _ in range(batch)]
    logits = torch.tensor(order, dtype=torch.float32)
    chosen = top_tokens(logits, k).view(batch, k)
    for b in range(batch):
        local = (chosen[b] - b * length).tolist()
        assert local == [i for i in range(length) if order[b][i] >= length - k]


def test_the_sampling_loss_pulls_the_threshold_to_the_choice() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5], requires_grad=True)
    sampling_loss(logits, torch.tensor([0])).backward()
    assert (logits.grad.sign() == torch.tensor([-1.0, 1.0, 1.0])).all()
    assert sampling_loss(torch.tensor([30.0, 30.0]), None).item() == pytest.approx(0)


def test_the_auxiliary_router_learns_from_detached_states() -> None:
    model = build(expert({"sampling": "aux_router"}))
    tokens, targets = draw(2, 12)
    model(tokens, targets).auxiliary["sampling_loss"].backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {f"aux_routers.{r}.weight" for r in range(3)}


def test_balanced_choices_minimise_nothing_but_imbalance() -> None:
    """Scores in step with the load cost more than even ones; alpha 1 and balance give 1."""
    even = torch.full((6, 3), 1 / 3)
    assert balancing_loss(even, torch.tensor([2, 2, 2])).item() == pytest.approx(1)
    skewed = torch.tensor([[0.8, 0.1, 0.1]]).repeat(6, 1)
    assert balancing_loss(skewed, torch.tensor([6, 0, 0])).item() == pytest.approx(2.4)


def test_the_bias_moves_the_choice_but_not_the_gate() -> None:
    config = RouterConfig(type="token", activation="softmax", alpha=1.0)
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    plain = choose_depth(config, logits, None)
    moved = choose_depth(config, logits, torch.tensor([0.0, 0.0, 5.0]))
    assert (plain.depth.item(), moved.depth.item()) == (0, 2)
    assert moved.gate.item() == pytest.approx(logits.softmax(-1)[0, 2].item())


def test_a_step_lifts_depths_that_are_short_of_tokens() -> None:
    model = build(token({"balancing": "loss_free", "bias_update_rate": 0.25}))
    model.after_step(torch.tensor([30, 10, 20]))
    assert model.balance_bias.tolist() == [-0.25, 0.25, 0.0]
    assert "balance_bias" in model.state_dict()
    plain = build(TOKEN["token"])
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    plain.after_step(torch.tensor([3, 1, 1]))
    assert all(value.equal(before[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("name", TOKEN)
def test_router_load_is_the_load_of_the_forward_pass(name: str) -> None:
    model = build(TOKEN[name])
    tokens, _ = draw(3, 17)
    load = model.router_load(tokens)
    assert load.tolist() == model(tokens).routed.load
    assert not load.requires_grad


def accumulated(model, tokens, targets, load):
    """Gradients of two micro-batches of half the weight."""
    model.zero_grad()
    for part in (slice(0, 2), slice(2, 4)):
        (model(tokens[part], targets[part], load=load).total_loss / 2).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def distance(a, b) -> float:
    return float(max((a[k] - b[k]).norm() / (b[k].norm() + 1e-12) for k in b))


def test_micro_batches_with_the_whole_load_equal_one_batch() -> None:
    model = build(token({"balance_coeff": 5.0, "z_coeff": 0.1}))
    tokens, targets = draw(4, 17)
    model(tokens, targets).total_loss.backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert distance(accumulated(model, tokens, targets, model.router_load(tokens)), whole) < 1e-4
    assert distance(accumulated(model, tokens, targets, None), whole) > 1e-3
