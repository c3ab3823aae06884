"""Mixture-of-Depths (Raposo et al. 2024, eq. 1): top-k tokens pass a layer, the others go around.

A chosen token becomes x + g (f(x) - x), f the layer with its residuals: at g = 1 a layer like any
other. Choice, losses, rule of inference and random scores are those of expert choice.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mor.config import ConfigError
from mor.model.routers.base import Forward, Scored
from mor.model.routers.course import Course, Tokens
from mor.model.routers.expert import (
    ExpertChoice,
    Experts,
    Gated,
    chosen_among,
    expert_scores,
)
from mor.model.routers.mod_spec import is_routed
from mor.model.routers.routes import Routes, narrow


class MixtureOfDepths(ExpertChoice):
    """`model.router.type=mod`."""

    def routed_blocks(self) -> list[int]:
        """Layers that are routed, in order: `net.routers[i]` is that of the i-th."""
        return [r for r in range(len(self.layout.recursions)) if is_routed(self.model, r)]

    def n_routers(self) -> int:
        return len(self.routed_blocks())

    def apply(self, net: nn.Module, x: Tensor, forward: Forward) -> Tensor:
        """Each layer over all tokens, or over its chosen ones."""
        routes = forward.routes
        everyone, experts = routes.everyone, self.experts(net, forward)
        places = {r: i for i, r in enumerate(self.routed_blocks())}
        for r in range(routes.n_blocks):
            if r not in places:
                routes.spans.append(everyone)
                x = forward.run(r, x, everyone)
                continue
            logits, rule = experts.scores.score(places[r], x, everyone)
            chosen = experts.choose(r, everyone, logits, rule)
            experts.note(forward, logits, rule, chosen)
            span, inner = everyone, x
            if chosen is not None:
                inner, logits = x.index_select(0, chosen), logits.index_select(0, chosen)
                span = narrow(everyone, chosen, forward.causal)
            routes.spans.append(span)
            if span.tokens == 0:
                continue
            f = forward.run(r, inner, span)
            gain = experts.gate(f, logits) * (f - inner)
            x = x + gain if chosen is None else x.index_add(0, chosen, gain)
        return x

    def course(self, net: nn.Module, limit: int | None) -> Course:
        if limit is not None:
            raise ConfigError(
                "max_recursions", limit, "Mixture-of-Depths has no recursions", "leave it out"
            )
        n_blocks = len(self.layout.recursions)
        places = {r: i for i, r in enumerate(self.routed_blocks())}
        return ModCourse(n_blocks, self.choice(net, n_blocks, step=None, causal=True), places)

    def scored(self, routes: Routes) -> Iterator[Scored]:
        for i, r in enumerate(self.routed_blocks()):
            chosen = chosen_among(routes.everyone, routes.spans[r], routes.everyone.tokens)
            scores = expert_scores(self.model.router, routes.logits[i])
            yield Scored(r, scores, chosen, routes.rule[i] > 0)


class ModCourse(Gated):
    """Whoever is not chosen goes around a layer."""

    passes_over = True

    def __init__(self, n_blocks: int, experts: Experts, places: dict[int, int]) -> None:
        super().__init__(n_blocks, experts)
        self.places = places

    def decide(self, r: int, tokens: Tokens) -> Tensor | None:
        return self.decide_with(self.places[r], r, tokens) if r in self.places else None

    def leave(self, r: int, tokens: Tokens, f: Tensor) -> Tensor:
        if r not in self.places:
            return f
        return torch.addcmul(tokens.x, tokens.notes[:, :1], f - tokens.x)
