"""What a model remembers between calls of `generate`: our caches, behind transformers' word."""

from __future__ import annotations

import torch
from torch import Tensor

from mor.inference.decode import Decoder
from mor.model.transformer import Transformer


class MorCache:
    """Caches of a batch, in step. Sequences with padding in front have one each, without it."""

    is_compileable = False

    def __init__(self, model: Transformer, mask: Tensor) -> None:
        """`mask` (B, S): 0 in front of a sequence is padding. Raises ValueError as `padding_of`."""
        self.padding = padding_of(mask)  # of each sequence
        self.length = 0  # tokens fed, padding included
        batch = len(mask)
        self.decoders = (
            [Decoder(model, 1) for _ in range(batch)] if self.padding else [Decoder(model, batch)]
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens fed so far, padding included."""
        return self.length

    def feed(self, tokens: Tensor) -> Tensor:
        """The next tokens (B, S) of each sequence; their logits (B, S, V)."""
        steps = [self._step(column) for column in tokens.unbind(1)]
        return torch.stack(steps, 1)

    def _step(self, tokens: Tensor) -> Tensor:
        place, self.length = self.length, self.length + 1
        if not self.padding:
            return _logits(self.decoders[0], tokens)
        found: list[Tensor | None] = [
            _logits(decoder, token[None])[0] if place >= padding else None
            for decoder, token, padding in zip(self.decoders, tokens, self.padding, strict=True)
        ]
        vocabulary = self.decoders[0].model.embed.weight
        nothing = torch.zeros(len(vocabulary), device=vocabulary.device)
        return torch.stack([nothing if logits is None else logits for logits in found])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        raise ValueError(
            "num_beams: beams swap caches, which these caches cannot; generate with num_beams=1"
        )


def padding_of(mask: Tensor) -> list[int]:
    """Zeros in front of each row of (B, S); empty where there are none anywhere.

    Raises ValueError for a zero behind a one, which our models have no mask for, and for a row of
    zeros alone, which has nothing to predict from.
    """
    mask = mask.bool()
    if mask.all():
        return []
    fronts = (~mask).sum(1).tolist()
    for i, (row, front) in enumerate(zip(mask, fronts, strict=True)):
        if front == len(row):
            raise ValueError(
                f"attention_mask: row {i} is padding alone; leave its text out, or begin it with "
                "the separator (eos_token)"
            )
        if not row[front:].all():
            raise ValueError(
                "attention_mask: zeros behind a token; pad on the left (padding_side='left')"
            )
    return fronts


def _logits(decoder: Decoder, tokens: Tensor) -> Tensor:
    logits = decoder.step(tokens).logits  # (B, 1, V)
    assert logits is not None
    return logits[:, 0]
