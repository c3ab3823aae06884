"""Run code twice: for real on the CPU, where what it reads of tensors is written down, and then on
FakeTensors that say they are on cuda, where these readings are played back.

A FakeTensor has a shape, a type and a device and no values. Operators on it fail where devices are
mixed or types do not match, as on a GPU. What the host reads (`item`, `tolist`, sizes that depend
on values) comes from the first run; each is a place where a GPU makes the host wait.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mor.model import masks

READS = (
    *(Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__),
    *(Tensor.__index__, Tensor.numpy),
)  # fmt: skip
COPIES = (Tensor.to, Tensor.cpu, Tensor.cuda)
SIZED = (torch.nonzero, Tensor.nonzero, torch.bincount, Tensor.bincount)
FLASH = (torch.bfloat16, torch.float16)


class Fault(Exception):
    """What would fail on a GPU, or hold what a GPU has no room for."""


class Recorder(TorchFunctionMode):
    """Keeps what the host reads of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.tape: list[tuple[str, Any]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in READS:
            self.tape.append((func.__name__, copy.copy(found)))
        elif func in SIZED or _by_mask(func, args):
            self.tape.append((func.__name__, tuple(found.shape)))
        return found


class Player(TorchFunctionMode):
    """Plays the readings back."""

    def __init__(self, tape: list[tuple[str, Any]]) -> None:
        super().__init__()
        self._tape, self._at = tape, 0
        self.waits: list[str] = []  # readings of the GPU, copies to it that do not go ahead

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in READS:
            return self._next(func, args[0])
        if func in SIZED:
            return torch.zeros(self._next(func, args[0]), dtype=torch.long, device=args[0].device)
        if _by_mask(func, args):
            shape = self._next(func, args[0])
            rows = torch.zeros(shape[0], dtype=torch.long, device=args[0].device)
            return args[0].flatten(0, args[1].dim() - 1).index_select(0, rows)
        if func is torch.tensor and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            made = torch.tensor(*args, **kwargs)
            self._note(device.type == "cuda")
            return torch.zeros(made.shape, dtype=made.dtype, device=device)
        found = func(*args, **kwargs)
        if func in COPIES and not kwargs.get("non_blocking"):
            self._note("cuda" in {args[0].device.type} ^ {found.device.type})
        if func is torch.tensor and isinstance(found, FakeTensor):
            found.constant = None  # a single number would keep its value, and be moved for real
        return found

    def _next(self, func: Any, tensor: Tensor) -> Any:
        name, value = self._tape[self._at]
        if name != func.__name__:
            raise Fault(f"the host reads otherwise than on a CPU: {func.__name__}, not {name}")
        self._at += 1
        self._note(tensor.device.type == "cuda")
        return copy.copy(value)

    def _note(self, waits: bool) -> None:
        if waits:
            self.waits.append(_caller())


def _by_mask(func: Any, args: Any) -> bool:
    """Indexing by a mask: as many rows as it has ones."""
    return (
        func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype is torch.bool
    )


def _attended(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Checks what torch's kernels on CUDA take: flash half precision, grouped heads and no mask;
    memory-efficient a mask, no grouped heads. All else is the math kernel, which holds the scores.
    """
    masks = [] if attn_mask is None else [attn_mask]
    if len({x.device for x in (q, k, v, *masks)}) > 1:
        raise Fault("attention over several devices")
    if len({x.dtype for x in (q, k, v)}) > 1:
        raise Fault(f"attention over {q.dtype}, {k.dtype} and {v.dtype}")
    if attn_mask is not None and attn_mask.dtype not in (torch.bool, q.dtype):
        raise Fault(f"attention of {q.dtype} under a mask of {attn_mask.dtype}")
    grouped = enable_gqa and q.shape[1] != k.shape[1]
    if grouped and (attn_mask is not None or q.dtype not in FLASH):
        raise Fault(f"the math kernel: grouped heads of {q.dtype}, mask {attn_mask is not None}")
    return q + 0 * (k.sum() + v.sum())


def _in_blocks(
    q: Tensor, k: Tensor, v: Tensor, block_mask: Any, scale: float, enable_gqa: bool
) -> Tensor:
    """Checks what FlexAttention's kernels take: one type, whole blocks, heads of 16 or more."""
    if len({(x.device, x.dtype) for x in (q, k, v)}) > 1:
        raise Fault("attention in blocks over several types or devices")
    if (q.shape[2], k.shape[2]) != block_mask.seq_lengths or q.shape[3] < masks.NARROWEST:
        raise Fault(f"attention in blocks: {list(q.shape)}, {list(k.shape)}")
    parts = (block_mask.kv_num_blocks, block_mask.kv_indices, block_mask.full_kv_indices)
    if any(part.device != q.device for part in parts):
        raise Fault("a block mask on another device")
    return q + 0 * (k.sum() + v.sum())


def _without_values(array: np.ndarray, given: Any = torch.from_numpy) -> Tensor:
    """A single number would keep its value on its way to the GPU, and be moved for real."""
    return torch.zeros(array.shape, dtype=given(array).dtype)


class Allocations(TorchDispatchMode):
    """Fails where a tensor on the GPU has two dimensions of a sequence's length: a matrix of
    scores, or a mask of their size."""

    def __init__(self, shortest: int) -> None:
        super().__init__()
        self._shortest = shortest

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves(found) if isinstance(one, Tensor)]
        for one in tensors:
            long = sum(n >= self._shortest for n in one.shape)
            if one.device.type == "cuda" and long > 1:
                raise Fault(f"dense: {func} makes {list(one.shape)} in {_caller()}")
        return found


def _caller() -> str:
    """The innermost function of the package."""
    ours = [frame for frame in traceback.extract_stack() if "/mor/" in frame.filename]
    return f"{ours[-1].filename.rpartition('/')[2]}:{ours[-1].name}" if ours else "torch"


def twice(work: Callable[[torch.device], Any], shortest: int) -> list[str]:
    """Run `work` on the CPU and then on the card that is not there; returns where the host waited.

    Raises Fault, and what torch raises for devices or types that do not match.
    """
    with Recorder() as recorder:
        work(torch.device("cpu"))
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with (
        # by name, and not as a mode: what is recomputed runs in a thread of autograd's
        mock.patch.object(F, "scaled_dot_product_attention", _attended),
        mock.patch.object(masks, "_compiled_flex", _in_blocks),
        mock.patch.object(torch, "from_numpy", _without_values),
        mock.patch.object(FakeTensor, "tolist", lambda one: Tensor.tolist(one)),
        fake,
        Allocations(shortest),
        Player(recorder.tape) as player,
    ):
        work(torch.device("cuda"))
    return player.waits
