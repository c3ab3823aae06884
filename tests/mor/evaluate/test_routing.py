"""Routing figures against the routing itself, counted plainly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ledger.folder import RunFolder
from mor.data.batches import Batches
from mor.data.prepare import prepare
from mor.data.tokenizer import ByteTokenizer, pieces
from mor.evaluate.routing import BINS, DepthObserver, ScoreObserver, scalars
from mor.evaluate.validation import final_validation, validate
from mor.model.components import shares
from mor.model.routers.expert_spec import selected
from mor.train.run import Hooks, train_run
from tests.mor.model.variants import EXPERT, ROUTED, SIZE, TOKEN, build, draw

PRECISION = torch.autocast("cpu", enabled=False)


@pytest.fixture
def trained(toy_run: Any, tmp_path: Path) -> Any:
    """The result of a short run of one architecture."""

    def run(architecture: str) -> dict[str, Any]:
        folder = RunFolder(tmp_path / architecture)
        config = toy_run(architecture, steps=30)
        train_run(config, folder, None, Hooks())
        result = folder.result()
        assert result is not None
        return {**result.to_dict(), "batches": Batches(prepare(config.data), 32, 4, 0)}

    return run


@pytest.mark.parametrize("architecture", ["mor", "mor_token"])
def test_the_figures_of_a_run_agree_with_each_other(architecture: str, trained: Any) -> None:
    result = trained(architecture)
    routing, loss = result["routing"], result["loss"]
    assert routing["tokens"] == 512
    assert sum(routing["depth_share"]) == pytest.approx(1, abs=1e-12)
    depths = [(r + 1) * share for r, share in enumerate(routing["depth_share"])]
    assert routing["mean_depth"] == pytest.approx(sum(depths))
    assert routing["mean_depth"] == loss["mean_recursions_causal"]
    assert routing["nll_by_depth"][-1] == loss["val_nll_causal"]
    assert len(set(routing["nll_by_depth"])) == 3
    assert 0 <= routing["entropy"] <= math.log(3) + 1e-12
    histogram = routing["score_histogram"]
    assert len(histogram["edges"]) == BINS + 1
    active = 512
    for chosen, others in zip(histogram["selected"], histogram["unselected"], strict=True):
        assert sum(chosen) + sum(others) == active
        active = sum(chosen) if architecture == "mor" else 512
    assert len(routing["sample"]["text"]) == len(routing["sample"]["depth"]) == 32
    [first, _] = next(result["batches"].validation(32, 1))
    assert "".join(routing["sample"]["text"]) == bytes(first[0].tolist()).decode()
    assert {"routing/mean_depth", "routing/nll_by_depth_3"} <= set(scalars(routing))


@pytest.mark.parametrize("architecture", ["vanilla", "recursive"])
def test_what_is_not_routed_has_no_figures(architecture: str, trained: Any) -> None:
    assert trained(architecture)["routing"] is None


def test_they_change_no_loss(toy_run: Any) -> None:
    config = toy_run("mor")
    batches = Batches(prepare(config.data), 32, 4, 0)
    model = build(ROUTED["expert-4"])
    model.embed = torch.nn.Embedding(256, SIZE.d_model)
    found = final_validation(model, batches, 512, PRECISION)
    for rule, ours in (("causal", found.causal), ("topk", found.topk)):
        assert validate(model, batches, 512, rule, PRECISION) == ours


@pytest.mark.parametrize("name", ["expert-4", "token-4"])
def test_figures_depend_on_no_batch_size(name: str, toy_run: Any, monkeypatch: Any) -> None:
    corpus = prepare(toy_run("mor").data)
    model = build(ROUTED[name])
    model.embed = torch.nn.Embedding(256, SIZE.d_model)
    found = []
    for at_once, batch in ((8192, 4), (64, 1)):
        monkeypatch.setattr("mor.evaluate.validation.FORWARD_TOKENS", at_once)
        found.append(final_validation(model, Batches(corpus, 32, batch, 0), 512, PRECISION))
    one, other = found
    assert one.causal.nll == pytest.approx(other.causal.nll, rel=1e-6)
    assert one.topk.nll == pytest.approx(other.topk.nll, rel=1e-6)
    assert one.routing.nll_by_depth == pytest.approx(other.routing.nll_by_depth, rel=1e-6)
    assert one.routing.depth_share == other.routing.depth_share
    assert one.routing.dead_token_ratio == other.routing.dead_token_ratio
    assert one.routing.sample == other.routing.sample


def observers(model: Any) -> tuple[DepthObserver, ScoreObserver]:
    n = model.n_blocks
    return DepthObserver(model.router, n), ScoreObserver(model.router, n, torch.device("cpu"))


def observed(name: str, routing: str, n_batches: int = 3) -> tuple[Any, Any, list[Any]]:
    model = build(ROUTED[name])
    depths, scores = observers(model)
    seen = []
    for seed in range(n_batches):
        tokens, _ = draw(3, 24, seed)
        with torch.no_grad():
            routed = model(tokens, routing=routing).routed
        depths(tokens, routed)
        scores(tokens, routed)
        seen.append(routed)
    return depths, scores, seen


@pytest.mark.parametrize("name", ["expert", "expert-4", "expert-first-too", "token", "token-4"])
def test_depths_are_those_of_the_tokens(name: str) -> None:
    depths, _, seen = observed(name, "causal")
    each = torch.cat([routed.depths for routed in seen])  # (B, S)
    n = depths.model.n_recursions
    for r, share in enumerate(depths.depth_share):
        assert share == pytest.approx((each == r + 1).double().mean().item())
    assert torch.equal(depths.reached, (each == n).any(0))
    share = torch.tensor(depths.depth_share, dtype=torch.double)
    if name.startswith("token"):
        assert depths.max_violation == pytest.approx((share.max() / share.mean() - 1).item())
    else:
        taken = [(each > r).double().mean().item() for r in range(n)]
        loads = [t / c for t, c in zip(taken, shares(depths.model, SIZE), strict=True) if c < 1]
        assert depths.max_violation == pytest.approx(max(loads) - 1)


@pytest.mark.parametrize("name", [n for n in EXPERT if "hot" in n or n == "expert-random"])
def test_the_rule_is_asked_about_active_tokens(name: str) -> None:
    _, scores, seen = observed(name, "topk")
    planned = shares(scores.router.model, SIZE)
    k = [selected(c, 24) for c in planned]
    assert scores.asked == [0, *(9 * n for n in k[:-1])]
    assert scores.sampling_accuracy[0] is None
    for r in (1, 2):
        hits = 0
        for routed in seen:
            before, after = routed.spans[r - 1], routed.spans[r]
            active = range(72) if before.where is None else before.where.tolist()
            chosen = set(after.where.tolist())
            above = [t for t, rule in zip(active, routed.rule[r].tolist(), strict=True) if rule > 0]
            hits += sum((t in chosen) == (t in above) for t in active)
        assert scores.sampling_accuracy[r] == pytest.approx(hits / scores.asked[r])


def test_a_rule_that_is_always_right_has_accuracy_1() -> None:
    model = build(EXPERT["expert"])
    _, scores = observers(model)
    tokens, _ = draw(3, 24)
    routed = model(tokens).routed
    for r in (1, 2):
        logits = routed.logits[r].view(3, -1)
        ranked = logits.sort(1, descending=True).values
        k = selected(shares(model.model, SIZE)[r], 24)
        routed.rule[r] = (logits - ranked[:, k - 1 : k + 1].mean(1, keepdim=True)).flatten()
    scores(tokens, routed)
    assert scores.sampling_accuracy == [None, 1.0, 1.0]
    routed.rule[2] = -routed.rule[2]
    scores(tokens, routed)
    assert scores.sampling_accuracy == [None, 1.0, 0.5]


@pytest.mark.parametrize("name", [*EXPERT, *TOKEN])
def test_selected_tokens_have_the_higher_scores(name: str) -> None:
    _, scores, _ = observed(name, "topk", 1)
    histogram = scores.histogram
    if name in TOKEN:
        sides = zip(histogram.selected, histogram.unselected, strict=True)
        assert all(sum(a) + sum(b) == 72 for a, b in sides)
        return
    for chosen, others in zip(histogram.selected, histogram.unselected, strict=True):
        if sum(others):
            centre = [
                sum(i * n for i, n in enumerate(side)) / sum(side) for side in (chosen, others)
            ]
            assert centre[0] >= centre[1]


@pytest.mark.parametrize("name", ["expert-cycle-2", "expert-4", "token-4", "token-loss-free"])
@pytest.mark.parametrize("limit", [1, 2, 4])
def test_a_token_that_stops_early_is_the_same_at_any_limit(name: str, limit: int) -> None:
    """Without an epilogue, nothing that goes deeper reaches a token that has left."""
    model = build(ROUTED[name])
    limit = min(limit, model.model.n_recursions)
    tokens, _ = draw(3, 24)
    with torch.no_grad():
        whole = model(tokens, routing="causal")
        limited = model(tokens, routing="causal", max_recursions=limit)
    assert torch.equal(limited.routed.depths, whole.routed.depths.clamp(max=limit))
    stops = whole.routed.depths <= limit
    assert stops.any()
    torch.testing.assert_close(limited.logits[stops], whole.logits[stops])
    if not stops.all():
        assert not torch.allclose(limited.logits[~stops], whole.logits[~stops])


def test_pieces_keep_every_character() -> None:
    tokenizer = ByteTokenizer()
    text = "naïve — 漢字 🙂!"
    tokens = tokenizer.encode([text])[0].tolist()
    found = pieces(tokenizer, tokens)
    assert len(found) == len(tokens)
    assert "".join(found) == text
    assert found[2:4] == ["", "ï"]
