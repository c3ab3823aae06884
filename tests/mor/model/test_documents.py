"""With a document mask a token sees its own document and nothing of the others."""

from __future__ import annotations

import pytest
import torch

from mor.model.spans import documents_of
from mor.model.transformer import Transformer
from tests.mor.model.variants import ALL, SEPARATOR, SIZE, VOCAB, build, draw, recursive

LENGTH, CUT = 16, 6
MASKED = sorted(name for name in ALL if "documents" in name)


def packed(seed: int = 0) -> torch.Tensor:
    """Two documents in each sequence: positions up to CUT, and what follows."""
    tokens, _ = draw(2, LENGTH, seed)
    tokens[tokens == SEPARATOR] = SEPARATOR + 1
    tokens[:, CUT] = SEPARATOR
    return tokens


def test_a_separator_closes_its_own_document() -> None:
    tokens = torch.tensor([[1, SEPARATOR, 2, 3, SEPARATOR, SEPARATOR, 4]])
    assert documents_of(tokens, SEPARATOR).tolist() == [[0, 0, 1, 1, 1, 2, 3, -1]]


@pytest.mark.parametrize("name", ["recursive-documents", "vanilla-cycle-documents"])
def test_a_document_reads_as_if_it_stood_alone(name: str) -> None:
    """Rotary positions are relative, so a shift of the whole document changes nothing."""
    model, tokens = build(ALL[name]), packed()
    together = model(tokens).logits[:, CUT + 1 :]
    torch.testing.assert_close(together, model(tokens[:, CUT + 1 :]).logits, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MASKED)
def test_another_document_changes_no_logit(name: str) -> None:
    model, tokens = build(ALL[name], seed=1), packed(1)
    other = tokens.clone()
    other[:, :CUT] = (other[:, :CUT] + 11) % VOCAB
    other[:, :CUT][other[:, :CUT] == SEPARATOR] = 0
    logits, changed = (model(x, routing="causal").logits for x in (tokens, other))
    assert (logits - changed)[:, CUT + 1 :].abs().max() < 1e-4
    assert (logits - changed)[:, :CUT].abs().max() > 1e-2


def test_the_separator_must_be_known() -> None:
    with pytest.raises(ValueError, match="separator"):
        Transformer(recursive(document_mask=True), SIZE, VOCAB)
