"""What a run has spent: FLOPs counted from the tokens actually routed, under every convention."""

from __future__ import annotations

from collections.abc import Sequence

from mor.config import Config
from mor.flops import CONVENTIONS, CostModel, Routed, cost_model, no_work
from mor.model.components import n_blocks
from mor.train.checkpoint import Progress


class Meter:
    """Adds up routed work and prices it."""

    def __init__(self, config: Config) -> None:
        self._convention = config.flops.convention
        self._seq_len = config.train.seq_len
        self._costs: dict[str, CostModel] = {
            name: cost_model(config.model, config.size, config.data.vocab_size, name)
            for name in CONVENTIONS
        }
        self.work = no_work(n_blocks(config.model, config.size))

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
        return {name: self.flops(name) for name in CONVENTIONS}

    def progress(self, step: int) -> Progress:
        return Progress(step, self.spent, self.work)
