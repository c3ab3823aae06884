"""What a run has spent: FLOPs counted from the tokens actually routed, under every convention."""

from __future__ import annotations

from collections.abc import Sequence

from mor.config import Config
from mor.flops import CostModel, Routed, cost_model
from mor.train.checkpoint import Progress

NAMES = ("paper", "exact", "6nd")


class Meter:
    """Adds up routed work and prices it."""

    def __init__(self, config: Config) -> None:
        self._convention = config.flops.convention
        self._seq_len = config.train.seq_len
        self._costs: dict[str, CostModel] = {
            name: cost_model(config.model, config.size, config.data.vocab_size, name)
            for name in NAMES
        }
        zeros = (0.0,) * config.model.n_recursions
        self.work = Routed(0.0, zeros, zeros)

    def add(self, processed: int, tokens: Sequence[float], pairs: Sequence[float]) -> None:
        """Count a batch of `processed` tokens by what each recursion took of them."""
        self.work = self.work + Routed(processed, tuple(tokens), tuple(pairs))

    def flops(self, convention: str) -> float:
        return self._costs[convention].flops(self.work, self._seq_len)

    @property
    def spent(self) -> float:
        """FLOPs so far under the run's own convention."""
        return self.flops(self._convention)

    def all_flops(self) -> dict[str, float]:
        return {name: self.flops(name) for name in NAMES}

    def progress(self, step: int) -> Progress:
        return Progress(step, self.spent, self.work)
