"""Where a routed model sends its tokens: the routing figures of `result.json`.

Measured while the model is validated, from what the forward passes keep anyway; only the loss at
smaller depths needs passes of its own. Nothing here changes a loss. Definitions (paper sec. 4.2):

- *dead tokens*: positions of the sequence that the last recursion selects in none of the first 500
  validation sequences;
- *sampling accuracy*: how often the inference rule (threshold or auxiliary router) agrees with
  top-k about a token still active, under top-k routing;
- *MaxVio*: max load / mean load - 1 over the depths of token choice; for expert choice under the
  causal rule, the load of a recursion over its capacity, the largest - 1;
- *entropy* of the mean selection probabilities, that is of the shares of tokens per depth: with
  their MaxVio this gives the entropies that the paper prints, mean softmax scores do not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mor.data.tokenizer import Tokenizer, pieces
from mor.model.components import router_of
from mor.model.routers.base import Router
from mor.model.routers.routes import Routes

BINS = 50
DEAD_SEQUENCES = 500  # sequences in which a position that is never selected counts as dead
SAMPLE = 256  # tokens of text that are kept with their depths


@dataclass(frozen=True)
class Histogram:
    """Router scores after the activation (alpha left out), per recursion, under top-k routing.

    Expert choice: of the tokens still active. Token choice: of all tokens, the score of depth r,
    selected by those that took it.
    """

    edges: list[float]  # B + 1
    selected: list[list[int]]  # (Nr, B)
    unselected: list[list[int]]  # (Nr, B)


@dataclass(frozen=True)
class Sample:
    """Consecutive tokens of validation text and the recursions that each took."""

    text: list[str]
    depth: list[int]


@dataclass(frozen=True)
class RoutingFigures:
    """The routing of one model on held-out text; what is not said otherwise is causal."""

    rule: str
    tokens: int  # validation tokens measured
    mean_depth: float  # recursions per token
    depth_share: list[float]  # (Nr,) of tokens by their last recursion; they sum to 1 where
    # recursion 1 takes every token
    dead_token_ratio: float
    sampling_accuracy: list[float | None] | None  # (Nr,), None where nothing is chosen; expert
    max_violation: float | None
    entropy: float  # nats
    score_histogram: Histogram
    nll_by_depth: list[float]  # (Nr,) causal loss where tokens take at most r recursions
    sample: Sample

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def has_scores(self) -> bool:
        """Whether the router gave any token a score."""
        kinds = (self.score_histogram.selected, self.score_histogram.unselected)
        return any(any(counts) for kind in kinds for counts in kind)


def scalars(routing: dict[str, Any]) -> dict[str, float]:
    """The figures of `result.json` that are single numbers, or one for each recursion."""
    found: dict[str, float] = {}
    for name in ("mean_depth", "dead_token_ratio", "max_violation", "entropy"):
        if routing[name] is not None:
            found[f"routing/{name}"] = routing[name]
    for name in ("depth_share", "sampling_accuracy", "nll_by_depth"):
        for r, value in enumerate(routing[name] or [], start=1):
            if value is not None:
                found[f"routing/{name}_{r}"] = value
    return found


class DepthObserver:
    """Watches the causal pass: loads, dead positions and a sample of text with depths."""

    def __init__(self, router: Router, n_blocks: int) -> None:
        self.model = router.model
        self.tokens = 0
        self.sequences = 0
        self.taken = [0] * n_blocks  # tokens that each block took
        self.by_depth = [0] * n_blocks  # tokens by how many blocks they took, from 1
        self.reached: Tensor | None = None  # (S,) positions that the last block selected
        self.sample: tuple[list[int], list[int]] = ([], [])

    def __call__(self, tokens: Tensor, routed: Routes) -> None:
        """Count one batch of tokens (B, S) and how it was routed."""
        batch, length = tokens.shape
        depths, n = routed.depths, len(self.taken)
        if self.reached is None:
            self.reached = torch.zeros(length, dtype=torch.bool, device=tokens.device)
            self.sample = (tokens[0, :SAMPLE].tolist(), depths[0, :SAMPLE].tolist())
        left = DEAD_SEQUENCES - self.sequences
        if left > 0:
            self.reached |= routed.took(n - 1)[:left].any(0)
        self.taken = [a + b for a, b in zip(self.taken, routed.tokens, strict=True)]
        counts = torch.bincount(depths.flatten(), minlength=n + 1).tolist()[1:]
        self.by_depth = [a + b for a, b in zip(self.by_depth, counts, strict=True)]
        self.tokens += batch * length
        self.sequences += batch

    @property
    def depth_share(self) -> list[float]:
        return [count / self.tokens for count in self.by_depth]

    @property
    def max_violation(self) -> float:
        return router_of(self.model).max_violation(self.model, self.taken, self.tokens)


class ScoreObserver:
    """Watches the top-k pass: scores of selected and other tokens, and the inference rule."""

    def __init__(self, router: Router, n_blocks: int, device: torch.device) -> None:
        self.router = router
        low, high = router.score_range()
        self.low, self.width = low, (high - low) / BINS
        self.counts = torch.zeros(n_blocks, 2 * BINS, dtype=torch.long, device=device)
        self.hits = torch.zeros(n_blocks, dtype=torch.long, device=device)
        self.asked = [0] * n_blocks  # tokens that the rule was asked about

    def __call__(self, tokens: Tensor, routed: Routes) -> None:
        """Count one batch of tokens (B, S) and how it was routed."""
        for found in self.router.scored(routed):
            self._count(found.block, found.scores, found.chosen)
            if found.by_rule is not None:
                self.hits[found.block] += (found.by_rule == found.chosen).sum()
                self.asked[found.block] += len(found.chosen)

    def _count(self, r: int, scores: Tensor, chosen: Tensor) -> None:
        bins = ((scores.float() - self.low) / self.width).long().clamp(0, BINS - 1)
        self.counts[r] += torch.bincount(bins + BINS * chosen, minlength=2 * BINS)

    @property
    def histogram(self) -> Histogram:
        edges = [round(self.low + i * self.width, 6) for i in range(BINS + 1)]
        counts = self.counts.tolist()
        return Histogram(edges, [row[BINS:] for row in counts], [row[:BINS] for row in counts])

    @property
    def sampling_accuracy(self) -> list[float | None] | None:
        if not router_of(self.router.model).chooses_tokens:
            return None
        pairs = zip(self.hits.tolist(), self.asked, strict=True)
        return [hits / asked if asked else None for hits, asked in pairs]


def figures(
    depths: DepthObserver,
    scores: ScoreObserver,
    nll_by_depth: Sequence[float],
    tokenizer: Tokenizer,
) -> RoutingFigures:
    """Put together what the observers have seen."""
    assert depths.reached is not None
    tokens, taken = depths.sample
    return RoutingFigures(
        rule="causal",
        tokens=depths.tokens,
        mean_depth=sum(depths.taken) / depths.tokens,
        depth_share=depths.depth_share,
        dead_token_ratio=1 - depths.reached.double().mean().item(),
        sampling_accuracy=scores.sampling_accuracy,
        max_violation=depths.max_violation,
        entropy=-sum(p * math.log(p) for p in depths.depth_share if p > 0),
        score_histogram=scores.histogram,
        nll_by_depth=list(nll_by_depth),
        sample=Sample(pieces(tokenizer, tokens), taken),
    )
