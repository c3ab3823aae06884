"""One or several torch optimizers as one, and their state as named tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mor.config import TrainConfig
from mor.model.lookup import load_module
from mor.optim.spec import optimizer_of


class Optimizer:
    """The optimizers of a model, each for weights of its own. A group keeps its peak rate."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts
        for group in self.param_groups:
            group["initial_lr"] = group["lr"]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def set_rate(self, factor: float) -> None:
        """Every group at `factor` of its peak learning rate."""
        for group in self.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_of(self, p: nn.Parameter) -> dict[str, torch.Tensor]:
        """State of one weight, by name; the tensors themselves."""
        found: dict[str, torch.Tensor] = {}
        for part in self.parts:
            found |= part.state.get(p, {})
        return found


def build_optimizer(model: nn.Module, train: TrainConfig) -> Optimizer:
    """The optimizer of `train.optimizer`. Raises ConfigError for an unknown name."""
    made: Optimizer = load_module(optimizer_of(train).module)(model, train)
    return made


def named_state(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Weights, buffers and optimizer state by name; the tensors themselves, not copies."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for name, p in model.named_parameters():
        for key, value in optimizer.state_of(p).items():
            tensors[f"optimizer/{name}/{key}"] = value
    return tensors
