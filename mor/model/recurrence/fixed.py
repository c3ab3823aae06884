"""A block that every token passes a fixed number of times: vanilla and recursive models. The base
of the torch halves of `mor.model.recurrence.spec`."""

from __future__ import annotations

from torch import Tensor, nn

from mor.config import ConfigError, ModelConfig, SizeConfig
from mor.model.layout import Layout
from mor.model.routers.base import Forward
from mor.model.routers.course import Course


class Fixed:
    """Every token takes every recursion. The model registers `modules` under their names and hands
    itself over as `net`."""

    def __init__(self, model: ModelConfig, size: SizeConfig, layout: Layout, seed: int) -> None:
        self.model, self.size, self.layout, self.seed = model, size, layout, seed

    def modules(self) -> dict[str, nn.Module]:
        """Weights, by the name that the model registers them under."""
        return {}

    def start(self, net: nn.Module) -> None:
        """Set weights that do not start as random ones."""

    def sometimes_unused(self, net: nn.Module) -> list[nn.Module]:
        """Modules that a training step may leave out."""
        return []

    def course(self, net: nn.Module, limit: int | None) -> Course:
        """The same for single tokens. Raises ConfigError for a limit."""
        n_blocks = net.n_blocks
        assert isinstance(n_blocks, int)
        if limit is not None and limit != n_blocks:
            raise ConfigError(
                "max_recursions",
                limit,
                f"every token of this model takes its {n_blocks} blocks",
                "leave it out",
            )
        return Course(n_blocks)

    def apply(self, net: nn.Module, x: Tensor, forward: Forward) -> Tensor:
        """Take all tokens through all recursions: (T, D) -> (T, D)."""
        routes = forward.routes
        for r in range(routes.n_blocks):
            x = forward.run(r, x, routes.everyone)
            routes.spans.append(routes.everyone)
        return x
