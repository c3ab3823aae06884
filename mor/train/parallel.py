"""How one model is spread over the ranks of a run: replicated (DDP) or sharded (FSDP2).

Either way each rank works on its own rows of the batch and gradients are averaged in float32. What
is particular to routed and tied models:

- ranks may take different ways through a token-routed model, and a tied layer is used several
  times. A collective inside of the recursions would hang or repeat, so FSDP shards what every rank
  passes exactly once in units of its own, and all that recurs in one unit, gathered once;
- a layer that no token of this rank reached has no gradient here but one elsewhere; `touch` gives
  it zeros, so that all ranks agree on which parameters a step moves.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mor.model.transformer import Output, Transformer
from mor.train.distributed import Ranks


class Pass(nn.Module):
    """A forward of training, in which every parameter that a token may reach takes part."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model
        self._sometimes = data_dependent(model)

    def forward(self, tokens: Tensor, targets: Tensor, **options: Any) -> Output:
        out: Output = self.model(tokens, targets, **options)
        if self._sometimes and out.total_loss is not None:
            deeper = [p for module in self._sometimes for p in module.parameters()]
            out.total_loss = touch(out.total_loss, deeper)
        return out


class Alone:
    """One process: the model as it is."""

    recovers = True  # whether a rank that runs out of memory leaves the others where they were

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.call: nn.Module = Pass(model)
        self.parameters = list(model.parameters())

    def forward(self, tokens: Tensor, targets: Tensor, load: Tensor | None, step: int) -> Output:
        """The losses of a micro-batch, and how its tokens were routed."""
        out: Output = self.call(tokens, targets, load=load, step=step, keep_logits=False)
        return out

    def syncing(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Around a micro-batch: gradients are averaged over ranks with the last one of a step."""
        return contextlib.nullcontext()

    def drop(self) -> None:
        """Forget a forward whose backward will not come, on all ranks."""

    def clip(self, max_norm: float) -> Tensor:
        """Clip gradients to a norm over all of them; returns the norm before."""
        return torch.nn.utils.clip_grad_norm_(self.parameters, max_norm)

    def whole(self) -> Transformer:
        """A model with all weights here, for evaluation. All ranks call it together."""
        return self.model


class Replicated(Alone):
    """DDP: all weights on every rank."""

    def __init__(self, model: Transformer, device: torch.device) -> None:
        super().__init__(model)
        self.ddp = DistributedDataParallel(
            self.call,
            device_ids=[device] if device.type == "cuda" else None,
            forward_sync_buffers=False,  # all ranks compute the same ones
            gradient_as_bucket_view=True,
            find_unused_parameters=not model.router.teaches_all,
        )
        self.call = self.ddp

    def syncing(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if last else self.ddp.no_sync()

    def drop(self) -> None:
        self.ddp.reducer._reset_state()  # else it waits for the other ranks in the next backward


class Sharded(Alone):
    """FSDP2: weights, gradients and optimiser state divided over the ranks."""

    recovers = False

    def __init__(self, model: Transformer, device: torch.device, ranks: Ranks) -> None:
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
        mesh = init_device_mesh(device.type, (ranks.size,))
        for i in passed_once(model):
            fully_shard(model.layers[i], mesh=mesh)
        fully_shard(model, mesh=mesh)
        register_fsdp_forward_method(model, "router_load")
        super().__init__(model)

    def syncing(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        assert isinstance(self.model, FSDPModule)
        self.model.set_requires_gradient_sync(last)
        self.model.set_reshard_after_backward(last)
        return contextlib.nullcontext()

    def clip(self, max_norm: float) -> Tensor:
        norm = super().clip(max_norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def whole(self) -> Transformer:
        given = self.model
        vocab = given.embed.num_embeddings
        plain = Transformer(given.model, given.size, vocab, given.seed, given.separator)
        device = next(given.parameters()).device
        weights = {
            name: value.full_tensor() if isinstance(value, DTensor) else value
            for name, value in given.state_dict().items()
        }
        plain.load_state_dict(weights)
        plain.speed = given.speed
        return plain.to(device)


def spread(model: Transformer, kind: str, device: torch.device, ranks: Ranks) -> Alone:
    """Spread a model that stands on its device as runtime.parallel says (ddp | fsdp)."""
    if ranks.size == 1:
        return Alone(model)
    return Sharded(model, device, ranks) if kind == "fsdp" else Replicated(model, device)


def passed_once(model: Transformer) -> list[int]:
    """The unique layers that every rank passes exactly once in each forward."""
    layout = model.layout
    return [layer for layer in layout.depths if layout.depths.count(layer) == 1]


def data_dependent(model: Transformer) -> list[nn.Module]:
    """Modules that a batch may leave out."""
    return [*model.router.sometimes_unused(model), *model.recurrence.sometimes_unused(model)]


def touch(loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """The same loss, whose backward gives each parameter a gradient, if only zeros."""
    touched: Tensor = _Touch.apply(loss, *parameters)
    return touched


class _Touch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad, *(torch.zeros_like(p) for p in ctx.parameters)
