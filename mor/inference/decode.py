"""Decoding with caches: the causal forward pass, one token of each sequence at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from mor.inference.cache import Cache
from mor.model.transformer import Output, Transformer


class Decoder:
    """Some sequences of one model, decoded in step.

    Routing is the rule of inference (threshold, auxiliary router, or a token's own depth), so a
    token takes the recursions that it would take in the causal forward pass, and the logits are
    those of that pass.
    """

    def __init__(self, model: Transformer, batch: int) -> None:
        self.model = model
        self.cache = Cache(model.model, model.size, model.layout, batch)

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Output:
        """Feed the next token of each sequence, (B,) int64; logits (B, 1, V) of the one after."""
        self.model.eval()
        return self.model(tokens[:, None], routing="causal", cache=self.cache)


def generate(
    model: Transformer,
    prompt: Tensor,
    n_new: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue prompts (B, n) by `n_new` tokens: (B, n + n_new).

    Temperature 0 takes the likeliest token. Raises ValueError for an empty prompt.
    """
    if prompt.shape[1] == 0:
        raise ValueError("prompt: empty; give at least one token")
    decoder, tokens = Decoder(model, len(prompt)), prompt
    for position in range(prompt.shape[1] + n_new - 1):
        logits = decoder.step(tokens[:, position]).logits
        if position + 1 < tokens.shape[1]:
            continue
        assert logits is not None
        tokens = torch.cat((tokens, _choose(logits[:, 0], temperature, generator)), 1)
    return tokens


def _choose(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)  # (B, 1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
