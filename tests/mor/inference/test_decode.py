"""Decoding with caches is the causal forward pass, token by token."""

from __future__ import annotations

import pytest
import torch

from mor.inference.decode import Decoder, generate
from tests.mor.model.variants import ALL, SEPARATOR, VOCAB, build

B = 3


@pytest.mark.parametrize("name", ALL)
def test_each_token_has_the_logits_of_the_full_causal_forward(name: str) -> None:
    model = build(ALL[name]).eval()
    tokens = torch.randint(VOCAB, (B, 12), generator=torch.Generator().manual_seed(3))
    tokens[:, 4] = SEPARATOR
    whole = model(tokens, routing="causal")
    decoder = Decoder(model, B)
    steps = [decoder.step(tokens[:, t]) for t in range(tokens.shape[1])]
    torch.testing.assert_close(
        torch.cat([step.logits for step in steps], 1), whole.logits, atol=2e-5, rtol=1e-4
    )
    assert torch.equal(torch.cat([step.routed.depths for step in steps], 1), whole.routed.depths)


@pytest.mark.parametrize("name", ["expert-hybrid", "token-shared-documents", "vanilla-cycle-2"])
def test_caches_grow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mor.inference.cache.GROWTH", 3)
    test_each_token_has_the_logits_of_the_full_causal_forward(name)


def test_greedy_continuations_are_those_of_the_full_forward() -> None:
    model = build(ALL["expert-shared"], seed=1).eval()
    prompt = torch.tensor([[3, 1, 4], [1, 5, 9]])
    tokens = prompt
    for _ in range(6):
        with torch.no_grad():
            logits = model(tokens, routing="causal").logits
        tokens = torch.cat((tokens, logits[:, -1].argmax(-1, keepdim=True)), 1)
    assert torch.equal(generate(model, prompt, 6), tokens)


def test_sampling_repeats_under_one_seed() -> None:
    model = build(ALL["token"], seed=1)
    first, second = (
        generate(
            model, torch.zeros(2, 1, dtype=torch.long), 8, 1.0, torch.Generator().manual_seed(s)
        )
        for s in (5, 5)
    )
    assert torch.equal(first, second)
    with pytest.raises(ValueError, match="at least one token"):
        generate(model, torch.zeros(2, 0, dtype=torch.long), 8)


def test_recursion_wise_caches_hold_the_routed_tokens_only() -> None:
    """Keys and values of a recursion: as many as tokens went there (paper sec. 2.2.2)."""
    model = build(ALL["expert"])
    tokens = torch.randint(VOCAB, (B, 12), generator=torch.Generator().manual_seed(3))
    decoder, taken = Decoder(model, B), torch.zeros(3, dtype=torch.long)
    for t in range(tokens.shape[1]):
        taken += torch.tensor(decoder.step(tokens[:, t]).routed.tokens)
    held = [int(stage.slots.counts.sum()) for stage in decoder.cache.recursions.each]
    assert held == taken.tolist()
    assert held[0] == tokens.numel() > held[1] > held[2] > 0
