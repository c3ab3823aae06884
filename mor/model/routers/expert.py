"""Expert choice (paper sec. 2.2.1): each recursion takes its top tokens. Design notes:

- recursion 1 at capacity 1 selects and gathers nothing; a deeper one gathers from the *compact* set
  of the one before, so its cost falls with its capacity;
- gains are added back from the innermost set outwards: only the last step touches all tokens;
- top-k shapes are static. Under the causal rule they are not, and the host waits per recursion;
- choices carry no gradient; it flows through the gates and through the auxiliary losses;
- losses are means over the tokens that a router saw, those still active, summed over recursions
  (recursion 1, which takes every token, included).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mor.config import RouterConfig
from mor.model.components import router_of
from mor.model.routers.base import Forward, Router, Scored
from mor.model.routers.course import Course, Groups, Tokens, within
from mor.model.routers.expert_spec import has_aux_router, selected
from mor.model.routers.networks import EveryDepth, build_router, random_scores, z_loss
from mor.model.routers.routes import Routes, narrow
from mor.model.routers.spec import is_plain, is_random
from mor.model.spans import Span

RAW_RANGE = 8.0  # raw scores (activation none) beyond it are counted in the outermost bins


class ExpertChoice(Router):
    """`model.router.type=expert`."""

    @property
    def teaches_all(self) -> bool:  # type: ignore[override]
        return not is_plain(self.model.router)

    def modules(self) -> dict[str, nn.Module]:
        """A router for each scored block; with aux_router a second one, for inference."""
        router, width = self.model.router, self.size.d_model
        if is_random(router):
            return {}
        count = self.n_routers()
        groups = {"routers": router.temperature}
        if has_aux_router(router):
            groups["aux_routers"] = 1.0
        return {
            name: nn.ModuleList(build_router(router, width, 1, heat) for _ in range(count))
            for name, heat in groups.items()
        }

    def n_routers(self) -> int:
        return len(self.layout.recursions)

    def apply(self, net: nn.Module, x: Tensor, forward: Forward) -> Tensor:
        """x + g f(x) for the chosen of those still active, f the block with its residuals."""
        routes = forward.routes
        span, base = routes.everyone, x
        experts = self.experts(net, forward)
        steps: list[tuple[Tensor | None, Tensor]] = []  # the chosen, and what they gained
        for r in range(routes.n_blocks if forward.limit is None else forward.limit):
            logits, rule = experts.scores.score(r, x, span)
            chosen = experts.choose(r, span, logits, rule)
            experts.note(forward, logits, rule, chosen)
            if chosen is not None:
                x, logits = x.index_select(0, chosen), logits.index_select(0, chosen)
                span = narrow(span, chosen, forward.causal)
            if span.tokens == 0:
                break
            routes.spans.append(span)
            f = forward.run(r, x, span)
            gate = experts.gate(f, logits)
            if not steps and chosen is None:
                base = x = torch.addcmul(x, gate, f)
                continue
            steps.append((chosen, gate * f))
            x = x + steps[-1][1]
        return add_back(base, steps)

    def experts(self, net: nn.Module, forward: Forward) -> Experts:
        """The choice of one forward pass."""
        return self.choice(net, forward.routes.n_blocks, forward.step, forward.causal)

    def choice(self, net: nn.Module, n_blocks: int, step: int | None, causal: bool) -> Experts:
        router = self.model.router
        shares = router_of(self.model).shares(self.model, n_blocks, step)
        scores: Scores
        if is_random(router):
            scores = RandomScores(self.seed, step or 0, shares)
        else:
            gates = cast(nn.ModuleList, net.get_submodule("routers"))
            rules = net.get_submodule("aux_routers") if has_aux_router(router) else None
            scores = LearnedScores(gates, cast("nn.ModuleList | None", rules))
        return Experts(router, shares, scores, causal)

    def course(self, net: nn.Module, limit: int | None) -> Course:
        n_blocks = net.n_blocks
        assert isinstance(n_blocks, int)
        return ExpertCourse(
            within(limit, n_blocks), self.choice(net, n_blocks, step=None, causal=True)
        )

    def loss_weights(self) -> dict[str, float]:
        router = self.model.router
        sampling = 1.0 if has_aux_router(router) else router.aux_coeff
        return {"sampling_loss": sampling, "router_z_loss": router.z_coeff}

    def score_range(self) -> tuple[float, float]:
        router = self.model.router
        if is_random(router):
            return 0.0, 1.0
        ranges = {"tanh": (-1.0, 1.0), "none": (-RAW_RANGE, RAW_RANGE)}
        return ranges.get(router.activation, (0.0, 1.0))

    def scored(self, routes: Routes) -> Iterator[Scored]:
        before: Span = routes.everyone
        for r, after in enumerate(routes.spans):
            chosen = chosen_among(before, after, routes.everyone.tokens)
            scores = expert_scores(self.model.router, routes.logits[r])
            by_rule = routes.rule[r] > 0 if after.tokens < before.tokens else None
            yield Scored(r, scores, chosen, by_rule)
            before = after


class Gated(Course):
    """Blocks of which a router decides who takes them and how much of them is added."""

    def __init__(self, n_blocks: int, experts: Experts) -> None:
        super().__init__(n_blocks)
        self.experts = experts

    def decide_with(self, router: int, r: int, tokens: Tokens) -> Tensor | None:
        """By the scores of the router with this index."""
        logits, rule = self.experts.scores.score(router, tokens.x, tokens)
        tokens.notes[:, :1] = self.experts.gate(tokens.x, logits)
        return None if self.experts.capacities[r] >= 1 else rule > 0


class ExpertCourse(Gated):
    """Expert choice by the inference rule: a token that is not chosen leaves."""

    def __init__(self, n_blocks: int, experts: Experts) -> None:
        super().__init__(n_blocks, experts)
        scores = experts.scores
        self.at_once: EveryDepth | None = None
        if isinstance(scores, LearnedScores) and scores.rules is None:
            self.at_once = EveryDepth.of(list(scores.gates))
        self.takes_all = [capacity >= 1 for capacity in experts.capacities]

    def decide(self, r: int, tokens: Tokens) -> Tensor | None:
        return self.decide_with(r, r, tokens)

    def decide_each(self, groups: Groups, tokens: Tokens) -> Tensor | None:
        if self.at_once is None or len(groups) == 1:
            return super().decide_each(groups, tokens)
        logits = self.at_once.score(groups, tokens.x)
        tokens.notes[:, :1] = self.experts.gate(tokens.x, logits)
        everywhere = [some for r, some in groups if self.takes_all[r]]
        if len(everywhere) == len(groups):
            return None
        chosen = logits > 0
        for some in everywhere:
            chosen[some] = True
        return chosen

    def leave(self, r: int, tokens: Tokens, f: Tensor) -> Tensor:
        return torch.addcmul(tokens.x, tokens.notes[:, :1], f)

    def leave_each(self, groups: Groups, tokens: Tokens, f: Tensor) -> Tensor:
        return self.leave(groups[0][0], tokens, f)


class Placed(Protocol):
    """Tokens that know where they stand."""

    def positions(self) -> Tensor: ...  # (T,)


class Scores(Protocol):
    """Where expert choice gets its scores from."""

    learned: bool

    def score(self, r: int, x: Tensor, span: Placed) -> tuple[Tensor, Tensor]:
        """Logits of the gate, and of the inference rule (chosen above 0)."""  # (T,), (T,)


@dataclass(frozen=True)
class LearnedScores:
    gates: nn.ModuleList  # one router per recursion
    rules: nn.ModuleList | None  # sampling=aux_router: the ones for inference
    learned = True

    def score(self, r: int, x: Tensor, span: Placed) -> tuple[Tensor, Tensor]:
        logits = self.gates[r](x).squeeze(1)
        rule = logits if self.rules is None else self.rules[r](x.detach()).squeeze(1)
        return logits, rule


@dataclass(frozen=True)
class RandomScores:
    """Uniform scores; the threshold keeps the share of the active tokens that top-k would."""

    seed: int
    step: int
    capacities: Sequence[float]
    learned = False

    def score(self, r: int, x: Tensor, span: Placed) -> tuple[Tensor, Tensor]:
        scores = random_scores(span.positions(), self.seed, self.step, r).squeeze(1)
        before = self.capacities[r - 1] if r else 1.0
        return scores, scores - (1 - self.capacities[r] / before)


@dataclass(frozen=True)
class Experts:
    """Expert choice as configured, with its scores."""

    router: RouterConfig
    capacities: Sequence[float]  # of this step
    scores: Scores
    causal: bool  # choose by the inference rule instead of top-k

    def choose(self, r: int, span: Span, logits: Tensor, rule: Tensor) -> Tensor | None:
        """Indices of the chosen among the span's tokens; None: all of them."""
        if self.capacities[r] >= 1:
            return None
        if self.causal:
            return (rule > 0).nonzero().squeeze(1)
        k = selected(self.capacities[r], span.tables.length)
        return None if k == span.length else top_tokens(logits.view(span.shape), k)

    def gate(self, f: Tensor, logits: Tensor) -> Tensor:
        """The factor of the block's output."""
        if is_plain(self.router):
            return torch.ones_like(f[:, :1])
        return expert_gate(self.router, logits)[:, None].to(f.dtype)  # (T, 1)

    def note(self, forward: Forward, logits: Tensor, rule: Tensor, chosen: Tensor | None) -> None:
        """Keep the logits; under top-k, add this block's share of the losses."""
        forward.routes.logits.append(logits.detach())
        forward.routes.rule.append(rule.detach())
        if self.causal or not self.scores.learned:
            return
        parts = {"sampling_loss": sampling_loss(rule, chosen)}
        if self.router.z_coeff:
            parts["router_z_loss"] = z_loss(logits[:, None])
        losses = forward.losses
        for name, loss in parts.items():
            losses[name] = losses[name] + loss if name in losses else loss


def add_back(base: Tensor, steps: list[tuple[Tensor | None, Tensor]]) -> Tensor:
    """Innermost set first: each gain is added, in place, to the gain of the set around it."""
    if not steps:
        return base
    chosen, gain = steps.pop()
    while steps:
        inner_chosen, inner = chosen, gain
        chosen, gain = steps.pop()
        gain = gain.add_(inner) if inner_chosen is None else gain.index_add_(0, inner_chosen, inner)
    return base + gain if chosen is None else base.index_add(0, chosen, gain)  # (T, D)


def expert_gate(router: RouterConfig, logits: Tensor) -> Tensor:
    """alpha G(logit), G sigmoid, tanh or nothing."""
    return router.alpha * expert_scores(router, logits)


def expert_scores(router: RouterConfig, logits: Tensor) -> Tensor:
    """G(logit)."""
    squash = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}.get(router.activation)
    return logits if squash is None else squash(logits)


def top_tokens(logits: Tensor, k: int) -> Tensor:
    """The k highest of each sequence, position-sorted, as indices into the flat tokens."""
    batch, length = logits.shape  # (B, n)
    chosen = logits.detach().topk(k, dim=1, sorted=False).indices.sort(dim=1).values  # (B, k)
    rows = torch.arange(batch, device=logits.device)[:, None] * length
    return (chosen + rows).flatten()  # (B * k,)


def sampling_loss(logits: Tensor, chosen: Tensor | None) -> Tensor:
    """BCE of the inference rule's logits against what top-k chose; None: every token."""  # (T,)
    if chosen is None:
        target = torch.ones_like(logits)
    else:
        target = torch.zeros_like(logits).index_fill_(0, chosen, 1.0)
    return F.binary_cross_entropy_with_logits(logits, target)


def chosen_among(before: Span, after: Span, n_tokens: int) -> Tensor:
    """Which of the tokens of `before`, in its order, are in `after`."""
    if after.where is None:
        return torch.ones(before.tokens, dtype=torch.bool, device=before.tables.cos.device)
    chosen = torch.zeros(n_tokens, dtype=torch.bool, device=after.where.device)
    chosen[after.where] = True
    return chosen if before.where is None else chosen[before.where]  # (T before,)
