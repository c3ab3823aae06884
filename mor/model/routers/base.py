"""What a router does in a forward pass and around it: the torch half of `mor.model.routers.spec`.
The base routes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from mor.config import ModelConfig, SizeConfig, UserError
from mor.model.layout import Layout
from mor.model.routers.course import Course
from mor.model.routers.routes import Routes
from mor.model.spans import Span

Run = Callable[[int, Tensor, Span], Tensor]  # block r's layers over a span: (T, D) -> (T, D)


@dataclass
class Forward:
    """One forward pass, as routers and recurrences see it."""

    routes: Routes
    run: Run
    causal: bool = False  # the rule of inference in place of top-k
    step: int | None = None  # of training, from 0; None: after all warm-up
    limit: int | None = None  # recursions that a token may take; None: all
    load: Tensor | None = None  # (Nr,) tokens per depth of the whole batch
    losses: dict[str, Tensor] = field(default_factory=dict)  # auxiliary ones, unweighted


@dataclass(frozen=True)
class Scored:
    """Router scores of one block, for the routing figures."""

    block: int
    scores: Tensor  # (T,) after the activation
    chosen: Tensor  # (T,) bool, by top-k or by depth
    by_rule: Tensor | None = None  # (T,) bool, what the rule of inference says; None: the same


class Router:
    """Routes nothing. The model registers `modules` and `buffers` under their names and hands
    itself over as `net`, so that weights have one owner and keep their names in checkpoints."""

    needs_load = False  # its loss reads the load of the whole batch
    teaches_all = True  # every weight has a gradient in every training step

    def __init__(self, model: ModelConfig, size: SizeConfig, layout: Layout, seed: int) -> None:
        self.model, self.size, self.layout, self.seed = model, size, layout, seed

    def modules(self) -> dict[str, nn.Module]:
        """Weights, by the name that the model registers them under."""
        return {}

    def buffers(self) -> dict[str, Tensor]:
        """Buffers of the router by name (state that is not a weight)."""
        return {}

    def apply(self, net: nn.Module, x: Tensor, forward: Forward) -> Tensor:
        """Take the tokens through their blocks: (T, D) -> (T, D)."""
        raise NotImplementedError

    def course(self, net: nn.Module, limit: int | None) -> Course:
        """The causal rule for single tokens; at most `limit` blocks each. Raises UserError for a
        router that has none."""
        raise UserError(
            f"model.router.type={self.model.router.type}: {type(self).__name__} has no method "
            "course(), which the engine decides by; write one (docs/extending.md) to generate "
            "with this router"
        )

    def loss_weights(self) -> dict[str, float]:
        """The weight of each auxiliary loss in the total loss."""
        return {}

    def depth(self, net: nn.Module, x: Tensor, span: Span, step: int | None) -> Tensor:
        """(T,) recursions that each token chooses, - 1; where `needs_load`."""
        raise NotImplementedError

    def after_step(self, net: nn.Module, load: Tensor, step: int | None) -> None:
        """Follow an optimizer step; `load`: (Nr,) tokens of its whole batch per last recursion."""

    def sometimes_unused(self, net: nn.Module) -> list[nn.Module]:
        """Modules that no token of a batch may reach."""
        return []

    def score_range(self) -> tuple[float, float]:
        """The range of the scores, after the activation."""
        return 0.0, 1.0

    def scored(self, routes: Routes) -> Iterator[Scored]:
        """The scores of a top-k pass, block by block."""
        return iter(())
