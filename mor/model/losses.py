"""The language-model loss of final states, with and without whole logits. Design notes:

- `chunked_loss` holds the logits of a few tokens at a time. They are made once: while a chunk's are
  there, its gradients with respect to states and embedding are taken, so nothing is recomputed;
- the gradient is scaled in the backward, where the weight of the loss is known;
- logits, loss and the embedding's gradient are float32, also under autocast.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # a target that does not count


def whole_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood over the targets."""  # (T, V), (T,)
    return F.cross_entropy(logits, targets, ignore_index=IGNORED)


def chunked_loss(x: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
    """The same from states and embedding, `chunk` tokens at a time."""  # (T, D), (V, D), (T,)
    return _ChunkedLoss.apply(x, weight, targets, chunk)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        count = (targets != IGNORED).sum().float()
        total = torch.zeros((), device=x.device)
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_x = torch.empty_like(x) if wanted else None
        grad_weight = torch.zeros_like(weight) if wanted else None
        for start in range(0, len(x), chunk):
            part, target = x[start : start + chunk], targets[start : start + chunk]
            logits = F.linear(part, weight).float()  # (chunk, V)
            total += F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
            if grad_x is None or grad_weight is None:
                continue
            grad = _logit_gradient(logits, target, count).to(part.dtype)
            grad_x[start : start + chunk] = grad @ weight.to(grad.dtype)
            if grad.dtype == grad_weight.dtype:
                grad_weight.addmm_(grad.T, part)
            else:
                grad_weight += (grad.T @ part).float()
        if wanted:
            ctx.save_for_backward(grad_x, grad_weight)
        return total / count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grad.to(grad_x.dtype), grad_weight * grad, None, None


def _logit_gradient(logits: Tensor, target: Tensor, count: Tensor) -> Tensor:
    """(softmax - one hot) / count; 0 where the target is ignored. Overwrites the logits."""
    real = target != IGNORED
    grad = logits.sub_(logits.logsumexp(1, keepdim=True)).exp_()
    grad.scatter_add_(1, target.clamp_min(0)[:, None], -torch.ones_like(grad[:, :1]))
    return grad.mul_((real / count)[:, None])
