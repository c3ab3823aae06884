"""Who went where in one forward pass: the record that the FLOP meter and the metrics read."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mor.model.spans import Rectangle, Span, ragged


@dataclass
class Routes:
    """The tokens that each block took. All but the logits is what is metered."""

    everyone: Span
    n_blocks: int  # that a token can pass, as the meter counts them
    reads_first: bool = False  # blocks after the first attend to the first one's tokens
    spans: list[Span] = field(default_factory=list)  # of each block; may end with the last token
    logits: list[Tensor] = field(default_factory=list)  # expert (T before,), token (B, S, Nr)
    rule: list[Tensor] = field(default_factory=list)  # expert: what the inference rule reads
    without_gradient: int = 0  # blocks, from the first, that no backward follows

    @property
    def tokens(self) -> list[int]:
        """Tokens that each block took, over the batch."""
        taken = [span.tokens for span in self.spans]
        return taken + [0] * (self.n_blocks - len(taken))

    @property
    def pairs(self) -> list[float]:
        """Query-key pairs of each recursion under causal attention; shared keys: on average over
        where its tokens stand among the first one's."""
        pairs = []
        for r, span in enumerate(self.spans):
            keys = self.spans[0] if self.reads_first and r > 0 else span
            both = zip(span.counts, keys.counts, strict=True)
            pairs.append(float(sum(n * (m + 1) for n, m in both)) / 2)
        return pairs + [0.0] * (self.n_blocks - len(pairs))

    @property
    def load(self) -> list[int]:
        """Tokens whose last recursion was each one."""
        tokens = [*self.tokens, 0]
        return [tokens[r] - tokens[r + 1] for r in range(self.n_blocks)]

    @property
    def selected(self) -> list[Tensor]:
        """Positions that each recursion took, ascending per sequence; pads at the end hold S."""
        device = self.everyone.tables.cos.device
        empty = torch.zeros(self.everyone.batch, 0, dtype=torch.long, device=device)
        grids = [span.grid() for span in self.spans]  # (B, n)
        return grids + [empty] * (self.n_blocks - len(grids))

    @property
    def depths(self) -> Tensor:
        """How many recursions each token took."""
        device = self.everyone.tables.cos.device
        depths = torch.zeros(self.everyone.tokens, dtype=torch.long, device=device)
        for span in self.spans:
            depths[slice(None) if span.where is None else span.where] += 1
        return depths.view(self.everyone.batch, self.everyone.length)  # (B, S)

    def took(self, r: int) -> Tensor:
        """Which tokens block `r` took."""
        cells = self.everyone.tokens
        device = self.everyone.tables.cos.device
        if r >= len(self.spans):
            found = torch.zeros(cells, dtype=torch.bool, device=device)
        elif (where := self.spans[r].where) is None:
            found = torch.ones(cells, dtype=torch.bool, device=device)
        else:
            found = torch.zeros(cells, dtype=torch.bool, device=device)
            found[where] = True
        return found.view(self.everyone.batch, self.everyone.length)  # (B, S)

    def forward_only(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Tokens and pairs of the blocks that no backward follows; empty where there are none."""
        n = self.without_gradient
        if not n:
            return (), ()
        tokens, pairs = self.tokens, self.pairs
        rest = (0.0,) * (len(tokens) - n)
        return (*tokens[:n], *rest), (*pairs[:n], *rest)


def narrow(span: Span, chosen: Tensor, causal: bool) -> Span:
    """The span of the chosen among a span's tokens."""
    where = chosen if span.where is None else span.where.index_select(0, chosen)
    if not causal:
        return Rectangle(span.batch, len(chosen) // span.batch, span.tables, where)
    length = span.tables.length
    active = torch.zeros(span.batch * length, dtype=torch.long, device=where.device)
    active = active.index_fill_(0, where, 1).view(span.batch, length)
    return ragged(active, where, active.sum(1).tolist(), span.tables)
