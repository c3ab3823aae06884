"""Switches that change time and memory of a model and leave its loss as it is. Design notes:

- they are set on a built model, from `runtime.*`, and are not part of a run's identity;
- recomputing keeps the chosen indices of every recursion: routers run outside of what is run twice;
- layers are compiled one by one: tied ones, and all of one shape, share a compiled function;
- expert choice trains with shapes that never change, and is compiled for just these. Under the
  causal rule every batch has its own, and layers run as they are written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

SHAPES = 64  # of one layer that are compiled, at most


@dataclass(frozen=True)
class Speed:
    loss_chunk: int | None = None  # tokens whose logits are held at once; None: all
    recompute: str = "none"  # none | recursion | layer: what the backward runs a second time
    fixed_shapes: bool = False  # compiled for the shapes of training and no others
    masks: str = "auto"  # blocks | dense | auto: blocks on CUDA

    def in_blocks(self, device: torch.device) -> bool:
        """Whether attention masks on a device are block masks."""
        return self.masks == "blocks" or (self.masks == "auto" and device.type == "cuda")

    def whole(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A recursion's pass, run again in the backward if that is asked for."""
        return recomputed(function) if self.recompute == "recursion" else function

    def each(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A layer's pass, run again in the backward if that is asked for."""
        return recomputed(function) if self.recompute == "layer" else function

    def shapes(self, ragged: bool) -> contextlib.AbstractContextManager[Any]:
        """Around a forward pass: eager where its shapes are not those that were compiled for."""
        if ragged and self.fixed_shapes:
            return torch.compiler.set_stance("force_eager")
        return contextlib.nullcontext()


def compiles(asked: bool | str, device: torch.device, stable: bool) -> bool:
    """Whether layers are compiled. auto: on a GPU, for shapes that never change; token choice has
    others in each step, and no GPU has timed it compiled."""
    return asked if isinstance(asked, bool) else device.type == "cuda" and stable


def allow_shapes() -> None:
    """Let as many shapes of a layer be compiled as micro-batches are tried on the way to the
    measured one, times recursions. torch stops at 8 and runs the rest as it is written: MoR-3's
    step at 360M then takes 1.08 times its FLOP ratio on a GPU."""
    limits = torch._dynamo.config
    limits.recompile_limit = max(SHAPES, limits.recompile_limit)


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose activations are computed again when the backward needs them."""

    def run(*arguments: Any) -> Any:
        if not torch.is_grad_enabled():
            return function(*arguments)
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)

    return run
