"""How large the pools are: a number of tokens, a number of bytes, or what memory is free."""

from __future__ import annotations

import os

import torch

from mor.inference.request import EngineError, Settings
from mor.inference.tables import Pool, Streams, page_bytes, pages_of
from mor.model.transformer import Transformer


def make_pools(model: Transformer, streams: Streams, settings: Settings) -> list[Pool]:
    """The pools of an engine. Raises EngineError for settings out of range, or for less than a
    page of each."""
    for name in ("max_batch", "chunk", "context", "page", "pool_tokens", "kv_bytes"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise EngineError(f"{name}={value}: out of range; give a number above 0")
    weight = model.embed.weight
    each = page_bytes(streams, settings.page, model.size, weight.dtype)
    tokens = settings.pool_tokens
    if tokens is None:
        one = pages_of(streams, settings.page, settings.page)  # of a page of tokens
        cost = sum(n * size for n, size in zip(one, each, strict=True))
        tokens = _bytes(settings, weight.device, cost) // cost * settings.page
    if tokens < settings.page:
        raise EngineError(
            f"kv_bytes={settings.kv_bytes}: has no room for one page of {settings.page} tokens; "
            "give it more"
            if settings.kv_bytes is not None
            else f"pool_tokens={tokens}: is less than one page; give {settings.page} or more"
        )
    needed = pages_of(streams, tokens, settings.page)
    return [
        Pool(streams.planes(i), pages, settings.page, model.size, weight.detach())
        for i, pages in enumerate(needed)
    ]


def _bytes(settings: Settings, device: torch.device, page_cost: int) -> int:
    if settings.kv_bytes is not None:
        return settings.kv_bytes
    whole = settings.max_batch * -(-settings.context // settings.page) * page_cost
    return min(whole, _free(device) // 2)


def _free(device: torch.device) -> int:
    """Bytes of memory that nobody uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
