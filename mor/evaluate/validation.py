"""Validation on held-out documents: loss under both routings, and where tokens went.

`topk` routes as in training: expert choice then ranks a token against later ones, so the future
leaks into the loss. `causal` uses the rule of inference (the router's threshold or the auxiliary
router), which sees the past only. Fits use the causal one by default.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ledger.result import BITS_KEYS, LOSS_KEYS
from mor.data.batches import Batches
from mor.data.packed import Meta
from mor.evaluate.keys_values import kv_statistics
from mor.evaluate.routing import DepthObserver, RoutingFigures, ScoreObserver, figures, scalars
from mor.model.components import recurrence_of, router_of
from mor.model.routers.routes import Routes
from mor.model.transformer import Transformer

# Per forward: 1.6 GB of logits at 49,152 entries; the training batch of 2 million tokens would be
# 400 GB, and one of 512 takes 1.7 times as long on a CPU. Rounding alone depends on it.
FORWARD_TOKENS = 8192

Observer = Callable[[Tensor, Routes], None]  # tokens (B, S) and how they were routed


@dataclass(frozen=True)
class Validation:
    """Mean negative log-likelihood in nats per token, and the mean depth taken."""

    nll: float
    mean_recursions: float  # recursions per token, averaged over the tokens
    bits_per_byte: float  # of text


@torch.no_grad()
def validate(
    model: Transformer,
    batches: Batches,
    n_tokens: int,
    routing: str,
    precision: torch.autocast,
    *,
    max_recursions: int | None = None,
    observers: tuple[Observer, ...] = (),
) -> Validation:
    """Loss over the first `n_tokens` held-out tokens under `routing` (topk | causal).

    No token takes more than `max_recursions`; observers see each batch and its routing.
    """
    model.eval()
    device = next(model.parameters()).device
    total, count, routed = 0.0, 0, 0.0
    at_once = max(1, FORWARD_TOKENS // batches.seq_len)
    try:
        for rows, next_rows in batches.validation(n_tokens, at_once):
            tokens = torch.from_numpy(rows).to(device)
            with precision:
                out = model(
                    tokens,
                    torch.from_numpy(next_rows).to(device),
                    routing=routing,
                    max_recursions=max_recursions,
                    keep_logits=False,
                )
            for observe in observers:
                observe(tokens, out.routed)
            total += out.loss.double().item() * rows.size
            count += rows.size
            routed += sum(out.routed.tokens)
    finally:
        model.train()
    nll = total / count
    return Validation(nll, routed / count, bits_per_byte(nll, batches.corpus.meta))


def bits_per_byte(nll: float, meta: Meta) -> float:
    """Nats per token as bits per byte of UTF-8 text, at the held-out text's bytes per token."""
    return nll / math.log(2) * meta.val_tokens / meta.val_bytes


@dataclass(frozen=True)
class FinalValidation:
    """What a finished run is worth. Without expert choice, both rules are one and the same."""

    causal: Validation
    topk: Validation
    routing: RoutingFigures | None = None  # of a routed model
    kv_statistics: dict[str, Any] | None = None  # of a model that routes nothing
    nll_by_depth: dict[int, float] | None = None  # loops -> causal loss, of a looped model

    @property
    def losses(self) -> dict[str, float]:
        return {
            LOSS_KEYS["causal"]: self.causal.nll,
            LOSS_KEYS["topk"]: self.topk.nll,
            BITS_KEYS["causal"]: self.causal.bits_per_byte,
            BITS_KEYS["topk"]: self.topk.bits_per_byte,
            "mean_recursions_causal": self.causal.mean_recursions,
            "mean_recursions_topk": self.topk.mean_recursions,
        }

    @property
    def figures(self) -> dict[str, float]:
        """The losses, and the routing figures that are single numbers."""
        return self.losses | (scalars(self.routing.as_json()) if self.routing else {})


def final_validation(
    model: Transformer, batches: Batches, n_tokens: int, precision: torch.autocast
) -> FinalValidation:
    """Both losses; of a routed model its routing and its loss at every smaller depth, of another
    its keys and values across depths, and of a looped one its loss at 1 to 2 R loops."""

    def run(routing: str, *observers: Observer, at_most: int | None = None) -> Validation:
        return validate(
            model, batches, n_tokens, routing, precision,
            max_recursions=at_most, observers=observers,
        )  # fmt: skip

    config = model.model
    spec = router_of(config)
    if not spec.routes:
        causal = run("causal")
        statistics = kv_statistics(model, batches, n_tokens, precision)
        depths = recurrence_of(config).validated_depths(config)
        by_depth = {r: run("causal", at_most=r).nll for r in depths} if depths else None
        return FinalValidation(causal, causal, None, statistics, by_depth)
    causal, topk, observer, scores = _routed(model, run)
    shallow = [run("causal", at_most=r).nll for r in spec.shallower(config)]
    routing = figures(observer, scores, [*shallow, causal.nll], batches.corpus.tokenizer())
    return FinalValidation(causal, topk, routing)


def validation_on_the_way(
    model: Transformer,
    batches: Batches,
    n_tokens: int,
    precision: torch.autocast,
    watch: Observer,
) -> FinalValidation:
    """Both losses, and of a routed model its routing, without the passes at smaller depths.

    `watch` sees each batch; what it raises ends the validation. No random number is drawn from
    the generators of training.
    """

    def run(routing: str, *observers: Observer) -> Validation:
        seen = (*observers, watch)
        return validate(model, batches, n_tokens, routing, precision, observers=seen)

    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if not router_of(model.model).routes:
            causal = run("causal")
            return FinalValidation(causal, causal)
        causal, topk, observer, scores = _routed(model, run)
    routing = figures(observer, scores, [], batches.corpus.tokenizer())
    return FinalValidation(causal, topk, routing)


def _routed(
    model: Transformer, run: Callable[..., Validation]
) -> tuple[Validation, Validation, DepthObserver, ScoreObserver]:
    """Causal and top-k validation of a routed model, and where its tokens went."""
    observer = DepthObserver(model.router, model.n_blocks)
    scores = ScoreObserver(model.router, model.n_blocks, next(model.parameters()).device)
    if router_of(model.model).chooses_tokens:
        return run("causal", observer), run("topk", scores), observer, scores
    both = run("causal", observer, scores)
    return both, both, observer, scores
