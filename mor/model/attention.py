"""Scaled dot-product attention, on each device by the kernel that holds no scores. Design notes:

- on CPU everything is one call of torch's, with grouped heads as they are: the reference;
- on CUDA plain causal attention is flash attention, which reads grouped heads itself, but takes no
  float32; the memory-efficient kernel does, and takes dense masks, but no grouped heads. Where
  torch would fall back to its math kernel, which holds all scores, heads are regrouped or repeated;
- block masks go through FlexAttention (`mor.model.masks`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mor.model.masks import Blocks, Mask, attend_blocks

FLASH = (torch.bfloat16, torch.float16)  # what the flash kernel takes


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask | None = None, is_causal: bool | None = None
) -> Tensor:
    """(B, H, n, Dh) and (B, H_kv, n_keys, Dh) twice -> (B, H, n, Dh).

    Plain causal without a mask, unless `is_causal` is false: then every query sees every key.
    """
    if isinstance(mask, Blocks):
        return attend_blocks(q, k, v, mask)
    causal = mask is None if is_causal is None else is_causal
    grouped = q.shape[1] != k.shape[1]
    if grouped and q.is_cuda and (mask is not None or q.dtype not in FLASH):
        if q.shape[2] == 1 and not causal:  # decoding: the queries of a group, one after another
            return _attend(_in_groups(q, k), k, v, mask, False, False).reshape(q.shape)
        times = q.shape[1] // k.shape[1]
        k, v, grouped = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1), False
    return _attend(q, k, v, mask, causal, grouped)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool, grouped: bool
) -> Tensor:
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=grouped
    )


def _in_groups(q: Tensor, k: Tensor) -> Tensor:
    """(B, H, 1, Dh) -> (B, H_kv, H / H_kv, Dh)."""
    return q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])
