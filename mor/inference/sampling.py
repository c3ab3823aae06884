"""Choosing a token. The n-th token of a request is drawn with a number that depends on the
request's seed and n only, by inverting the cumulative distribution: no generator has a state."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from mor.inference.request import Sampling


def choose(logits: Tensor, sampling: Sampling, n: int) -> int:
    """The n-th new token of a request, from logits (V,)."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    tokens, probabilities = allowed(logits, sampling)
    cumulative = probabilities.cumsum(0)
    drawn = random.Random(f"{sampling.seed}/{n}").random() * float(cumulative[-1])
    place = int(torch.searchsorted(cumulative, drawn, right=True))
    return int(tokens[min(place, len(tokens) - 1)])


def allowed(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The tokens that may be drawn, likeliest first, and their probabilities, not renormalised."""
    scaled = logits.double() / sampling.temperature
    scaled, tokens = scaled.sort(descending=True, stable=True)
    if sampling.top_k is not None:
        scaled, tokens = scaled[: sampling.top_k], tokens[: sampling.top_k]
    probabilities = scaled.softmax(0)
    if sampling.top_p < 1:
        before = probabilities.cumsum(0) - probabilities
        n = max(1, int((before < sampling.top_p).sum()))
        tokens, probabilities = tokens[:n], probabilities[:n]
    return tokens, probabilities
