"""The fast ways of travelling against the plain one, and what a recursion counts."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F

from mor.model.routers.expert_spec import selected
from mor.model.spans import Rectangle, Tables, ragged
from tests.mor.model.naive import Naive
from tests.mor.model.variants import (
    ALL,
    EXPERT,
    ROUTED,
    SIZE,
    TOKEN,
    VOCAB,
    build,
    draw,
    expert,
    recursive,
    token,
)

LENGTH = 19
WEIGHTS = {"balancing_loss": "balance_coeff", "router_z_loss": "z_coeff"}


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


def naive_total(model, naive, logits, targets, auxiliary):
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    router = model.model.router
    for name in auxiliary:
        default = "aux_coeff" if router.sampling == "aux_loss" else None
        weight = WEIGHTS.get(name, default)
        total = total + (getattr(router, weight) if weight else 1.0) * naive.loss(name)
    return total


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_training_equals_the_naive_reference(name: str, batch: int) -> None:
    model = build(ALL[name], seed=batch)
    tokens, targets = draw(batch, LENGTH, seed=batch)
    out, naive = model(tokens, targets), Naive(model)
    expected = naive(tokens)
    torch.testing.assert_close(out.logits, expected, atol=2e-4, rtol=1e-4)
    total = naive_total(model, naive, expected, targets, out.auxiliary)
    assert out.total_loss.item() == pytest.approx(total.item(), abs=2e-5)
    fast, plain = gradients(model, out.total_loss), gradients(model, total)
    assert fast.keys() == plain.keys()
    for key, grad in fast.items():
        assert (grad - plain[key]).norm() <= 1e-4 * plain[key].norm() + 1e-7, key


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ROUTED)
def test_causal_routing_equals_the_naive_reference(name: str, batch: int) -> None:
    model = build(ROUTED[name], seed=batch + 3)
    tokens, _ = draw(batch, LENGTH, seed=batch)
    out, naive = model(tokens, routing="causal"), Naive(model, causal=True)
    torch.testing.assert_close(out.logits, naive(tokens), atol=2e-4, rtol=1e-4)
    check_counts(out.routed, naive, model.model.kv)


@pytest.mark.parametrize("name", ALL)
def test_tokens_pairs_positions_and_depths_are_those_of_the_naive_reference(name: str) -> None:
    model = build(ALL[name], seed=5)
    tokens, _ = draw(2, LENGTH)
    naive = Naive(model)
    naive(tokens)
    check_counts(model(tokens).routed, naive, model.model.kv)


def check_counts(routed, naive, kv: str) -> None:
    n = routed.n_blocks
    empty = torch.zeros(0, dtype=torch.long)
    taken = [row + [empty] * (n - len(row)) for row in naive.taken]  # [sequence][recursion]
    depths = torch.zeros(len(taken), LENGTH, dtype=torch.long)
    for r in range(n):
        sizes = [len(row[r]) for row in taken]
        assert routed.tokens[r] == sum(sizes)
        reads_first = kv in ("shared", "hybrid") and r > 0
        keys = [len(row[0 if reads_first else r]) for row in taken]
        expected = sum(m * (k + 1) / 2 for m, k in zip(sizes, keys, strict=True))
        assert routed.pairs[r] == expected
        for b, row in enumerate(taken):
            positions = routed.selected[r][b]
            assert torch.equal(positions[positions < LENGTH], row[r])
            depths[b, row[r]] += 1
    assert torch.equal(routed.depths, depths)
    assert routed.load == [int((depths == r + 1).sum()) for r in range(n)]


def test_expert_choice_counts_are_static() -> None:
    routed = build(EXPERT["expert"])(draw(2, LENGTH)[0]).routed
    assert routed.tokens == [2 * LENGTH, 2 * selected(2 / 3, LENGTH), 2 * selected(1 / 3, LENGTH)]


def test_no_token_goes_on() -> None:
    """Routers that say 0 pass no threshold: the causal model is its first recursion alone."""
    model, first = build(expert()), build(expert())
    tokens, _ = draw(2, LENGTH)
    for r in (1, 2):
        torch.nn.init.zeros_(model.routers[r].weight)
        torch.nn.init.zeros_(first.routers[r].weight)
    out = model(tokens, routing="causal")
    assert out.routed.tokens == [2 * LENGTH, 0, 0]
    assert [tuple(s.shape) for s in out.routed.selected] == [(2, LENGTH), (2, 0), (2, 0)]
    torch.testing.assert_close(out.logits, Naive(first, causal=True)(tokens), atol=1e-4, rtol=1e-4)


def test_all_tokens_choose_the_first_depth() -> None:
    model = build(TOKEN["token-loss-free"])
    model.balance_bias[0] = 10.0
    tokens, targets = draw(2, LENGTH)
    out = model(tokens, targets)
    assert out.routed.tokens == [2 * LENGTH, 0]
    torch.testing.assert_close(out.logits, Naive(model)(tokens), atol=1e-4, rtol=1e-4)
    out.total_loss.backward()


@pytest.mark.parametrize("kv", ["recursion", "shared"])
def test_a_sequence_without_tokens_beside_one_with_some(kv: str) -> None:
    """The first coordinate of the state decides; in sequence 0 it is negative everywhere."""
    model = build(expert(kv=kv))
    with torch.no_grad():
        model.embed.weight[:, 0] = torch.where(torch.arange(VOCAB) < VOCAB // 2, -100.0, 100.0)
        for router in model.routers:
            router.weight.zero_()
            router.weight[0, 0] = 1.0
    tokens, _ = draw(2, LENGTH)
    tokens[0] %= VOCAB // 2
    out = model(tokens, routing="causal")
    counts = (out.routed.selected[1] < LENGTH).sum(1)
    assert counts[0] == 0
    assert 0 < counts[1] < LENGTH
    assert out.logits.isfinite().all()
    expected = Naive(model, causal=True)(tokens)
    torch.testing.assert_close(out.logits, expected, atol=1e-3, rtol=1e-3)


def test_everything_selected_with_a_gate_of_one_adds_the_block_to_the_state() -> None:
    model = build(expert({"alpha": 2.0}, n_recursions=2, capacity=(1.0, 1.0), sharing="cycle"))
    for router in model.routers:
        torch.nn.init.zeros_(router.weight)  # sigmoid(0) = 1/2
    tokens, _ = draw(2, LENGTH)
    plain = build(recursive(n_recursions=2, sharing="cycle"))
    plain.load_state_dict(model.state_dict(), strict=False)
    out = model(tokens)
    span = out.routed.everyone
    x = plain.embed(tokens.flatten())
    for _ in range(2):
        x = x + plain._pass(plain.layout.recursions[0], x, span)
    logits = plain.norm(x, x.dtype) @ plain.embed.weight.T
    torch.testing.assert_close(out.logits.flatten(0, 1), logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.logits, model(tokens, routing="causal").logits)


def test_token_choice_at_full_depth_is_a_recursive_model_with_a_skip() -> None:
    router = {"activation": "sigmoid", "alpha": 2.0, "balancing": "loss_free"}
    model = build(token(router, sharing="cycle"))
    torch.nn.init.zeros_(model.routers[0].weight)
    model.balance_bias[2] = 10.0
    tokens, _ = draw(2, LENGTH)
    plain = build(recursive(sharing="cycle"))
    plain.load_state_dict(model.state_dict(), strict=False)
    out = model(tokens)
    first = plain.embed(tokens.flatten())
    x = first
    for r in range(3):
        x = plain._pass(plain.layout.recursions[r], x, out.routed.everyone)
    logits = plain.norm(first + x, x.dtype) @ plain.embed.weight.T
    torch.testing.assert_close(out.logits.flatten(0, 1), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["expert-shared", "token-shared", "recursive-cycle-shared"])
def test_later_recursions_compute_no_keys_or_values_when_they_are_shared(name: str) -> None:
    model, calls = build(ALL[name]), []
    attention = model.layers[model.layout.recursions[0][0]].attention
    for piece in ("q", "k", "v"):
        hook = functools.partial(lambda piece, *_: calls.append(piece), piece)
        getattr(attention, piece).register_forward_hook(hook)
    model(draw(2, LENGTH)[0])
    assert sorted(calls) == ["k", "q", "q", "q", "v"]


def test_a_ragged_span_lays_out_and_picks_up_its_tokens() -> None:
    active = torch.tensor([[0, 0, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0]])
    where = torch.tensor([9, 4, 7, 6])  # flat index, in no order
    tables = Tables(torch.zeros(4, 1, SIZE.d_head), torch.zeros(4, 1, SIZE.d_head))
    span = ragged(active, where, [0, 3, 1], tables)
    assert span.grid().tolist() == [[4, 4, 4], [0, 2, 3], [1, 4, 4]]
    heads = torch.randn(4, 2, SIZE.d_head)
    grid = span.to_grid(heads)
    assert torch.equal(grid[1, 0], heads[1])
    assert torch.equal(grid[2, 0], heads[0])
    assert torch.equal(span.from_grid(grid), heads.flatten(1))
    assert Rectangle(2, 4, tables).grid().tolist() == [[0, 1, 2, 3]] * 2
