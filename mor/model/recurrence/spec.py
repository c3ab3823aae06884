"""How a block is applied: the torch-free half. Vanilla, recursive and MoR models apply it a fixed
number of times; a recurrence with more to it has files of its own (`looped_spec`, `looped`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mor.config import ConfigError, ModelConfig, SizeConfig
from mor.model.layout import Layout
from mor.model.sharing import divided, pattern_of, shared_layout


@dataclass(frozen=True)
class RecurrenceSpec:
    """One value of `model.architecture`, and what planning needs to know of it."""

    name: str
    ties: bool  # one block is applied several times
    routes: bool = False  # tokens take different numbers of recursions
    module: str = "mor.model.recurrence.fixed:Fixed"
    options: ClassVar[type | None] = None  # dataclass of settings of its own, below `model.`

    def layout(self, model: ModelConfig, size: SizeConfig) -> Layout:
        """The depths of a model of this architecture."""
        if not self.ties:
            return Layout((), (tuple(range(size.n_layers)),), ())
        return shared_layout(model, size)

    def check(self, model: ModelConfig, size: SizeConfig) -> None:
        """Raise ConfigError for a model that cannot be built."""
        if not self.ties:
            if model.n_recursions != 1:
                raise ConfigError(
                    "model.n_recursions",
                    model.n_recursions,
                    f"model.architecture={self.name} applies every layer once",
                    "choose model=recursive or model=mor",
                )
            return
        if model.n_recursions < 2:
            raise ConfigError(
                "model.n_recursions",
                model.n_recursions,
                "one recursion is a vanilla model",
                "set model.n_recursions=2 or more, or choose model=vanilla",
            )
        between = size.n_layers - pattern_of(model).unshared
        if model.block_layers is None and model.n_recursions > between:
            raise ConfigError(
                "model.n_recursions",
                model.n_recursions,
                f"size.n_layers={size.n_layers} leaves only {max(between, 0)} layers to share "
                f"under model.sharing={model.sharing}",
                f"set model.n_recursions={max(between, 2)} or less, more size.n_layers, "
                "or model.block_layers",
            )

    def inactive(self, model: ModelConfig, size: SizeConfig) -> tuple[str, ...]:
        """Settings below `model.` that nothing of this model depends on."""
        if not self.ties:
            return ("block_layers", "sharing")
        return ("block_layers",) if model.block_layers == divided(model, size) else ()

    def loops(self, model: ModelConfig, layout: Layout) -> int:
        """The most blocks that a token can pass, as they are counted (`Routed.tokens`)."""
        return len(layout.recursions)

    def share_of_steps(self, model: ModelConfig, r: int) -> float:
        """Share of training steps that reach recursion `r` (from 0)."""
        return 1.0

    def share_without_gradient(self, model: ModelConfig, r: int) -> float:
        """Share of training steps in which recursion `r` is run without a backward."""
        return 0.0

    def depends_on_step(self, model: ModelConfig) -> bool:
        """Whether a training forward needs to know its step."""
        return False

    def params(self, model: ModelConfig, size: SizeConfig) -> int:
        """Parameters beside those of the layers."""
        return 0

    def token_flops(self, model: ModelConfig, size: SizeConfig, r: int) -> int:
        """Forward FLOPs per token in front of recursion `r`, beside those of the layers."""
        return 0

    def token_params(self, model: ModelConfig, size: SizeConfig, r: int) -> int:
        """Parameters that a token passes in front of recursion `r`, beside those of the layers."""
        return 0

    def validated_depths(self, model: ModelConfig) -> tuple[int, ...]:
        """Recursions at which an unrouted model is validated beside its own number."""
        return ()


VANILLA = RecurrenceSpec("vanilla", ties=False)
RECURSIVE = RecurrenceSpec("recursive", ties=True)
MOR = RecurrenceSpec("mor", ties=True, routes=True)
