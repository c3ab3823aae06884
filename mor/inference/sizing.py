"""How large the pools are: a number of tokens, a number of bytes, or what memory is free."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import torch
from torch import Tensor

from mor.inference.request import EngineError, Settings
from mor.inference.tables import Pool, Streams, page_bytes, pages_of
from mor.model.transformer import Transformer

MEMINFO = Path("/proc/meminfo")


def make_pools(model: Transformer, streams: Streams, settings: Settings) -> list[Pool]:
    """The pools of an engine, whose settings are checked. Raises EngineError for a depth out of
    range, for less than a page of each, and for more than there is memory."""
    depth, n_blocks = settings.mean_depth, len(streams.layers) - 2
    if depth is not None and not 1 <= depth <= n_blocks:
        raise EngineError(f"mean_depth={depth}: out of range; give 1 to {n_blocks} blocks")
    weight = model.embed.weight
    if settings.context * model.size.d_head * weight.itemsize > _memory(weight.device):
        raise EngineError(
            f"context={settings.context}: angles of its positions do not fit the memory; give fewer"
        )
    dtype = dtype_of(settings, weight)
    each = page_bytes(streams, settings.page, model.size, dtype)
    tokens = settings.pool_tokens
    per_page = _pages_per_page(streams, depth)
    if tokens is None:
        cost = sum(n * size for n, size in zip(per_page, each, strict=True))
        tokens = int(_bytes(settings, weight.device, cost) // cost) * settings.page
    if tokens < settings.page:
        raise EngineError(
            f"kv_bytes={settings.kv_bytes}: has no room for one page of {settings.page} tokens; "
            "give it more"
            if settings.kv_bytes is not None
            else f"pool_tokens={tokens}: is less than one page; give {settings.page} or more"
        )
    pages = -(-tokens // settings.page)
    counts = [math.ceil(pages * n) for n in per_page]
    needed = sum(count * size for count, size in zip(counts, each, strict=True))
    try:
        if needed > _memory(weight.device):
            raise MemoryError
        return [
            Pool(
                streams.planes(i),
                count,
                settings.page,
                model.size,
                weight.new_empty(0, dtype=dtype),
            )
            for i, count in enumerate(counts)
        ]
    except (MemoryError, RuntimeError):  # torch has either
        name = "pool_tokens" if settings.pool_tokens is not None else "kv_bytes"
        room = _free(weight.device) // 2
        most = room if name == "kv_bytes" else room * tokens // needed
        raise EngineError(
            f"{name}={getattr(settings, name)}: keys and values of {needed / 2**30:.3g} GiB do not "
            f"fit the memory; give {max(1, most)} or less"
        ) from None


def dtype_of(settings: Settings, weight: Tensor) -> torch.dtype:
    """Of linear maps, attention, keys and values."""
    return torch.bfloat16 if settings.bf16 else weight.dtype


def _pages_per_page(streams: Streams, depth: float | None) -> list[float]:
    """Pages of each pool to a page of tokens that take so many blocks; None: all of them."""
    full = pages_of(streams, 1, 1)
    n_blocks = len(streams.layers) - 2
    if depth is None or n_blocks == 1:
        return [float(n) for n in full]
    per_pool = [0.0] * len(full)
    for stream in range(len(streams.layers)):
        if streams.writes(stream):
            later = 1 < stream < 1 + n_blocks
            per_pool[streams.pool(stream)] += (depth - 1) / (n_blocks - 1) if later else 1.0
    return per_pool


def _bytes(settings: Settings, device: torch.device, page_cost: float) -> int:
    if settings.kv_bytes is not None:
        return settings.kv_bytes
    whole = settings.max_batch * -(-settings.context // settings.page) * page_cost
    return min(round(whole), _free(device) // 2)


def _free(device: torch.device) -> int:
    """Bytes of free memory; of a CPU, with what the kernel only keeps as a cache of files."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        available = re.search(r"^MemAvailable:\s*(\d+) kB$", MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        available = None
    if available:
        return int(available[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _memory(device: torch.device) -> float:
    """Bytes of memory, free or not, on a CPU, which gives out more than it has; a GPU refuses."""
    if device.type != "cpu":
        return math.inf
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
