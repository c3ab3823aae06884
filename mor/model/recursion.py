"""How tokens travel through the recursions. Notable about it:

- recursion 1 at capacity 1 selects and gathers nothing; a deeper one gathers from the *compact* set
  of the one before, so its cost falls with its capacity;
- expert choice adds back from the innermost set outwards: only the last step touches all tokens;
- token choice sorts the tokens that go on by depth, deepest first: every later set is a prefix, so
  nothing is gathered twice and the host waits for one small table of counts per forward;
- top-k shapes are static. Under the causal rule they are not, and the host waits per recursion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from mor.config import RouterConfig
from mor.model import routing
from mor.model.sharing import selected
from mor.model.spans import Rectangle, Span, ragged

Run = Callable[[int, Tensor, Span], Tensor]  # recursion r's layers over a span: (T, D) -> (T, D)


@dataclass
class Routed:
    """Who went where. Everything but the logits is what the FLOP meter and the metrics count."""

    everyone: Span
    spans: list[Span] = field(default_factory=list)  # of each recursion; ends with the last token
    logits: list[Tensor] = field(default_factory=list)  # expert (T before,), token (B, S, Nr)
    rule: list[Tensor] = field(default_factory=list)  # expert: what the inference rule reads
    n_recursions: int = 1
    kv: str = "recursion"

    @property
    def tokens(self) -> list[int]:
        """Tokens that each recursion took, over the batch."""
        taken = [span.tokens for span in self.spans]
        return taken + [0] * (self.n_recursions - len(taken))

    @property
    def pairs(self) -> list[float]:
        """Query-key pairs of each recursion under causal attention; shared keys: on average."""
        to_all = (self.everyone.length + 1) / 2
        pairs = [float(sum(n * (n + 1) // 2 for n in span.counts)) for span in self.spans]
        if self.kv in ("shared", "hybrid"):
            pairs[1:] = [span.tokens * to_all for span in self.spans[1:]]
        return pairs + [0.0] * (self.n_recursions - len(pairs))

    @property
    def load(self) -> list[int]:
        """Tokens whose last recursion was each one."""
        tokens = [*self.tokens, 0]
        return [tokens[r] - tokens[r + 1] for r in range(self.n_recursions)]

    @property
    def selected(self) -> list[Tensor]:
        """Positions that each recursion took, ascending per sequence; pads at the end hold S."""
        device = self.everyone.tables.cos.device
        nobody = torch.zeros(self.everyone.batch, 0, dtype=torch.long, device=device)
        grids = [span.grid() for span in self.spans]  # (B, n)
        return grids + [nobody] * (self.n_recursions - len(grids))

    @property
    def depths(self) -> Tensor:
        """How many recursions each token took."""
        device = self.everyone.tables.cos.device
        depths = torch.zeros(self.everyone.tokens, dtype=torch.long, device=device)
        for span in self.spans:
            depths[slice(None) if span.where is None else span.where] += 1
        return depths.view(self.everyone.batch, self.everyone.length)  # (B, S)


def travel_together(x: Tensor, routed: Routed, run: Run) -> Tensor:
    """Vanilla and recursive: every token takes every recursion."""
    for r in range(routed.n_recursions):
        x = run(r, x, routed.everyone)
        routed.spans.append(routed.everyone)
    return x  # (T, D)


# -- expert choice -----------------------------------------------------------------------------


class Scores(Protocol):
    """Where expert choice gets its scores from."""

    learned: bool

    def score(self, r: int, x: Tensor, span: Span) -> tuple[Tensor, Tensor]:
        """Logits of the gate, and of the inference rule (chosen above 0)."""  # (T,), (T,)


@dataclass(frozen=True)
class LearnedScores:
    gates: nn.ModuleList  # one router per recursion
    rules: nn.ModuleList | None  # sampling=aux_router: the ones for inference
    learned = True

    def score(self, r: int, x: Tensor, span: Span) -> tuple[Tensor, Tensor]:
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

    def score(self, r: int, x: Tensor, span: Span) -> tuple[Tensor, Tensor]:
        scores = routing.random_scores(span.positions(), self.seed, self.step, r).squeeze(1)
        before = self.capacities[r - 1] if r else 1.0
        return scores, scores - (1 - self.capacities[r] / before)


@dataclass(frozen=True)
class Experts:
    """Expert choice as configured, with its scores."""

    router: RouterConfig
    capacities: Sequence[float]  # of this step
    scores: Scores
    causal: bool  # choose by the inference rule instead of top-k
    limit: int | None = None  # recursions that a token may take; None: all

    def choose(self, r: int, span: Span, logits: Tensor, rule: Tensor) -> Tensor | None:
        """Indices of the chosen among the span's tokens; None: all of them."""
        if self.capacities[r] >= 1:
            return None
        if self.causal:
            return (rule > 0).nonzero().squeeze(1)
        k = selected(self.capacities[r], span.tables.length)
        return None if k == span.length else routing.top_tokens(logits.view(span.shape), k)

    def gate(self, f: Tensor, logits: Tensor) -> Tensor:
        """The factor of the block's output."""
        if self.router.gating == "plain":
            return torch.ones_like(f[:, :1])
        return routing.expert_gate(self.router, logits)[:, None].to(f.dtype)  # (T, 1)


def travel_by_expert(
    x: Tensor, routed: Routed, run: Run, experts: Experts, losses: dict[str, Tensor]
) -> Tensor:
    """x + g f(x) for the chosen of those still active, f the block with its residuals."""
    span = routed.everyone
    base = x
    steps: list[tuple[Tensor | None, Tensor]] = []  # the chosen, and what they gained
    for r in range(routed.n_recursions if experts.limit is None else experts.limit):
        logits, rule = experts.scores.score(r, x, span)
        chosen = experts.choose(r, span, logits, rule)
        note_expert(routed, losses, experts, logits, rule, chosen)
        if chosen is not None:
            x, logits = x.index_select(0, chosen), logits.index_select(0, chosen)
            span = narrow(span, chosen, experts.causal)
        if span.tokens == 0:
            break
        routed.spans.append(span)
        f = run(r, x, span)
        gate = experts.gate(f, logits)
        if not steps and chosen is None:
            base = x = torch.addcmul(x, gate, f)
            continue
        steps.append((chosen, gate * f))
        x = x + steps[-1][1]
    return add_back(base, steps)


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


def narrow(span: Span, chosen: Tensor, causal: bool) -> Span:
    """The span of the chosen among a span's tokens."""
    where = chosen if span.where is None else span.where.index_select(0, chosen)
    if not causal:
        return Rectangle(span.batch, len(chosen) // span.batch, span.tables, where)
    length = span.tables.length
    active = torch.zeros(span.batch * length, dtype=torch.long, device=where.device)
    active = active.index_fill_(0, where, 1).view(span.batch, length)
    return ragged(active, where, active.sum(1).tolist(), span.tables)


def note_expert(
    routed: Routed,
    losses: dict[str, Tensor],
    experts: Experts,
    logits: Tensor,
    rule: Tensor,
    chosen: Tensor | None,
) -> None:
    """Keep the logits; under top-k, add this recursion's share of the losses."""
    routed.logits.append(logits.detach())
    routed.rule.append(rule.detach())
    if experts.causal or not experts.scores.learned:
        return
    parts = {"sampling_loss": routing.sampling_loss(rule, chosen)}
    if experts.router.z_coeff:
        parts["router_z_loss"] = routing.z_loss(logits[:, None])
    for name, loss in parts.items():
        losses[name] = losses[name] + loss if name in losses else loss


# -- token choice ------------------------------------------------------------------------------


def travel_by_token(x: Tensor, routed: Routed, run: Run, choice: routing.DepthChoice) -> Tensor:
    """H1 + g f(H) at a token's last recursion; inner ones pass f's output on ungated."""
    span, depth = routed.everyone, choice.depth
    table = depth_table(depth, span.batch, routed.n_recursions)  # the only wait for the device
    y = run(0, x, span)
    routed.spans.append(span)
    deeper = sum(table[1])
    if deeper:
        order = depth.sort(descending=True, stable=True).indices[:deeper]  # deepest first
        inner = travel_prefixes(y.index_select(0, order), routed, run, depth, order, table)
        y = y.index_copy_(0, order, inner)
    return torch.addcmul(x, choice.gate.to(y.dtype), y)  # (T, D)


def travel_prefixes(
    x: Tensor, routed: Routed, run: Run, depth: Tensor, order: Tensor, table: list[list[int]]
) -> Tensor:
    """Recursions 2 and on: x holds the tokens in `order`, so that a prefix of it goes on."""
    everyone = routed.everyone
    grid = depth.view(everyone.batch, everyone.length)
    leaving: list[Tensor] = []
    for r in range(1, routed.n_recursions):
        span = ragged(grid >= r, order[: len(x)], table[r], everyone.tables)
        routed.spans.append(span)
        x = run(r, x, span)
        onwards = sum(table[r + 1])
        if onwards == 0:
            break
        x, left = x.split([onwards, len(x) - onwards])
        leaving.append(left)
    return torch.cat([x, *reversed(leaving)]) if leaving else x


def depth_table(depth: Tensor, batch: int, n_recursions: int) -> list[list[int]]:
    """table[r][b]: tokens of sequence b that take recursion r; a last row of zeros."""
    rows = torch.arange(batch, device=depth.device)[:, None] * n_recursions
    cells = (depth.view(batch, -1) + rows).flatten()
    counts = torch.bincount(cells, minlength=batch * n_recursions).view(batch, n_recursions)
    taken = counts.flip(1).cumsum(1).flip(1).T.tolist()  # (Nr, B)
    return [*taken, [0] * batch]
