"""Exits of looped models by confidence, to compare rules on one checkpoint. Design notes:

- what the model would say after a loop is read through the last norm and the head, the last layers
  left out: they would need keys and values for every loop;
- entropy: a token leaves when the entropy is below the threshold. kl: when the distribution after
  a loop differs from that before it by less (KL between loops, as Huginn, arXiv 2502.05171);
- a token that has left is seen by later loops of other tokens as its deepest loop left it: keys
  and values of every position are there, as the model was trained. At a threshold of 0 no token
  leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from mor.config import ConfigError
from mor.inference.request import EngineError, number
from mor.model.components import recurrence_of, router_of
from mor.model.kv.spec import mode_of
from mor.model.routers.course import Course, Tokens
from mor.model.sharing import pattern_of
from mor.model.transformer import Transformer

RULES = ("entropy", "kl")


@dataclass(frozen=True)
class Exits:
    """A rule and its threshold, in nats."""

    rule: str
    threshold: float

    def check(self) -> None:
        """Raises EngineError for an unknown rule or a threshold that is no number from 0 on."""
        if self.rule not in RULES:
            raise EngineError(f"exits.rule={self.rule}: not known; give {' or '.join(RULES)}")
        threshold = number(self.threshold)
        if threshold is None or not 0 <= threshold < float("inf"):
            raise EngineError(f"exits.threshold={self.threshold}: give 0 or more nats")


class Confident(Course):
    """A course that every token passes until the model is sure. Raises ConfigError, EngineError."""

    def __init__(self, inner: Course, model: Transformer, exits: Exits) -> None:
        super().__init__(inner.n_blocks)
        exits.check()
        config = model.model
        mode = mode_of(config)
        unfit = router_of(config).routes or not recurrence_of(config).ties
        if unfit or not pattern_of(config).aligned or mode.sources:
            raise ConfigError(
                "model.architecture",
                config.architecture,
                "exits by confidence are for models that loop one block over all tokens",
                "leave the rule out",
            )
        self.inner, self.model, self.exits = inner, model, exits
        self.reads_first = inner.reads_first

    def decide(self, r: int, tokens: Tokens) -> Tensor | None:
        return None if r == 0 else tokens.notes[:, 0] >= self.exits.threshold

    def enter(self, r: int, tokens: Tokens) -> Tensor:
        return self.inner.enter(r, tokens)

    def leave(self, r: int, tokens: Tokens, f: Tensor) -> Tensor:
        after = self.inner.leave(r, tokens, f)
        now = self._read(after)
        if self.exits.rule == "entropy":
            doubt = -(now.exp() * now).sum(-1)
        else:
            doubt = (now.exp() * (now - self._read(tokens.x))).sum(-1)
        tokens.notes[:, 0] = doubt.clamp_min(0)
        return after

    def _read(self, x: Tensor) -> Tensor:
        """Log-probabilities as if these were the last states: (T, V)."""
        x = self.model.norm(x, self.model.embed.weight.dtype)
        return F.linear(x, self.model.embed.weight).float().log_softmax(-1)
