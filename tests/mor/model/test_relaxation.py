"""What recursions have of their own: nothing at first, and everything of it learns."""

from __future__ import annotations

import pytest
import torch

from mor.model.transformer import Transformer
from tests.mor.model.variants import (
    ALL,
    RELAXATIONS,
    SIZE,
    VOCAB,
    build,
    draw,
    expert,
    recursive,
    relax,
)


@pytest.mark.parametrize("kind", RELAXATIONS)
def test_a_new_model_is_the_plain_tied_one(kind: str) -> None:
    relaxed = Transformer(expert(relaxation=relax(kind)), SIZE, VOCAB)
    plain = Transformer(expert(), SIZE, VOCAB)
    assert plain.state_dict().keys() < relaxed.state_dict().keys()
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, relaxed.state_dict()[name]), name
    tokens, _ = draw(2, 12)
    torch.testing.assert_close(relaxed(tokens).logits, plain(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [*(f"recursive-{kind}" for kind in RELAXATIONS), "recursive-shared-lora", "expert-hybrid-lora"],
)
def test_everything_of_a_recursion_learns(name: str) -> None:
    model = build(ALL[name])
    tokens, targets = draw(2, 12)
    model(tokens, targets).total_loss.backward()
    own = [(k, p) for k, p in model.named_parameters() if k.startswith("relaxation.")]
    assert own
    for key, weight in own:
        assert weight.grad is not None, key
        assert weight.grad.abs().max() > 0, key


def test_recursions_differ_by_what_is_theirs_only() -> None:
    """The encoding of one recursion, moved: the same model but for that recursion's input."""
    model = build(recursive(relaxation=relax("encoding"), sharing="cycle", n_recursions=2))
    for vector in model.relaxation.vectors.of:
        torch.nn.init.zeros_(vector)
    tokens, _ = draw(2, 12)
    before = model(tokens).logits
    torch.nn.init.constant_(model.relaxation.vectors.of[0], 0.3)
    first = model(tokens).logits
    with torch.no_grad():
        model.embed.weight += 0.3
        shifted = model(tokens)
        model.relaxation.vectors.of[0].zero_()
        moved = model(tokens)
    assert (first - before).abs().max() > 1e-2
    assert (shifted.logits - moved.logits).abs().max() > 1e-2
