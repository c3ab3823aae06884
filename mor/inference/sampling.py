"""Choosing a token. The n-th token of a request is drawn with a number that depends on the
request's seed and n only, by inverting the cumulative distribution: no generator has a state."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from mor.inference.request import Sampling


def choose(logits: Tensor, samplings: Sequence[Sampling], ns: Sequence[int]) -> list[int]:
    """The next token of each request, its n-th new one, from logits (R, V)."""
    plain = [i for i, one in enumerate(samplings) if one.temperature and not _limited(one)]
    everyone = len(plain) == len(samplings)
    chosen = [0] * len(plain) if everyone else logits.argmax(-1).tolist()
    if plain:
        heat = torch.tensor([samplings[i].temperature for i in plain], dtype=torch.float64)
        scaled = (logits if everyone else logits[plain]).double() / heat.to(logits.device)[:, None]
        cumulative = scaled.softmax(-1).cumsum(-1)
        draws = [_uniform(samplings[i], ns[i]) for i in plain]
        for i, token in zip(plain, _invert(cumulative, draws), strict=True):
            chosen[i] = token
    for i, one in enumerate(samplings):
        if one.temperature and _limited(one):
            tokens, probabilities = allowed(logits[i], one)
            place = _invert(probabilities.cumsum(0)[None], [_uniform(one, ns[i])])[0]
            chosen[i] = int(tokens[place])
    return chosen


def _limited(sampling: Sampling) -> bool:
    return sampling.top_k is not None or sampling.top_p < 1


def _uniform(sampling: Sampling, n: int) -> float:
    """In [0, 1), of 53 bits."""
    digest = hashlib.blake2b(f"{sampling.seed}/{n}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) * 2.0**-53


def _invert(cumulative: Tensor, draws: Sequence[float]) -> list[int]:
    """Where draws from [0, 1) fall in distributions that need not be normalised, (R, V)."""
    drawn = torch.tensor(draws, dtype=cumulative.dtype, device=cumulative.device)[:, None]
    places = torch.searchsorted(cumulative, drawn * cumulative[:, -1:], right=True)
    return places.squeeze(1).clamp_max(cumulative.shape[1] - 1).tolist()


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
