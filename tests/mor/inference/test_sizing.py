"""How pools are shared out, and that maps and norms made for inference are the model's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from mor.inference import Engine, EngineError, Sampling, Settings, sizing
from mor.inference.packed import packed
from mor.model.layers import Layer
from tests.mor.model.variants import ALL, VOCAB, build

BYTES = 2**16


@pytest.mark.parametrize("name", ["expert", "expert-shared", "expert-hybrid", "vanilla"])
def test_pools_hold_what_was_stated_whatever_the_depth(name: str) -> None:
    model = build(ALL[name], seed=1)
    pages = {}
    depths = (None, 1.0, 1.5) if name != "vanilla" else (None, 1.0)
    for depth in depths:
        engine = Engine(model, Settings(context=32, page=2, kv_bytes=BYTES, mean_depth=depth))
        pages[depth] = engine.pools[0].pages
        used = engine.statistics().pool_bytes
        assert BYTES * 0.8 < used <= BYTES + max(pool.page_bytes for pool in engine.pools)
    keeps_deep = name in ("expert", "expert-hybrid")
    assert (pages[1.0] > pages[None]) == keeps_deep  # room for more tokens in the first layers
    if name != "vanilla":
        assert pages[None] <= pages[1.5] <= pages[1.0]


def test_a_full_page_cache_is_memory_that_a_pool_may_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the kernel gives back where it is asked for is free; what it cannot is not."""
    model = build(ALL["vanilla"], seed=1)
    settings = Settings(max_batch=4, context=32, page=2)
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(sizing, "MEMINFO", meminfo, raising=False)
    sysconf = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_AVPHYS_PAGES": 0}.get(name, sysconf(name)))
    pools = {}
    for available in (10**6, 16):  # kB
        meminfo.write_text(f"MemTotal: 9000000 kB\nMemFree: 4 kB\nMemAvailable: {available} kB\n")
        pools[available] = Engine(model, settings).statistics().pool_bytes
    assert pools[16] < 12 * 1024 < pools[10**6]
    meminfo.write_text("MemTotal: 9000000 kB\n")  # of an older kernel
    with pytest.raises(EngineError, match="pool_tokens"):
        Engine(model, settings)


def test_requests_end_in_pools_made_for_shallow_tokens() -> None:
    model = build(ALL["expert"], seed=1)
    asked = [[i + 1, i + 2] for i in range(6)]
    wanted = Engine(model, Settings(context=16)).generate(asked, Sampling(max_new=9))
    tight = Settings(context=16, page=1, pool_tokens=14, mean_depth=1.0)
    with pytest.raises(EngineError, match="pool_tokens"):  # 11 tokens at full depth do not fit
        Engine(model, tight).submit(asked[0], Sampling(max_new=9))
    roomy = Engine(model, Settings(context=16, page=1, pool_tokens=33, mean_depth=1.0))
    found = roomy.generate(asked, Sampling(max_new=9))
    assert [one.tokens for one in found] == [one.tokens for one in wanted]


def test_an_impossible_depth_is_refused() -> None:
    model = build(ALL["expert"], seed=1)
    for depth in (0.5, 3.5):
        with pytest.raises(EngineError, match="mean_depth"):
            Engine(model, Settings(mean_depth=depth))


def test_packed_layers_are_the_layers() -> None:
    model = build(ALL["expert"], seed=1)
    layer = model.layers[1]
    assert isinstance(layer, Layer)
    x = torch.randn(5, model.size.d_model, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        twin = packed(layer, torch.float32)
        for rows in (x, 1e-4 * x, torch.zeros_like(x)):  # also where epsilon decides
            h = layer.mlp_norm(rows, torch.float32)
            torch.testing.assert_close(twin.mlp_norm(rows, torch.float32), h, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(twin.mlp(h), layer.mlp(h), atol=1e-6, rtol=1e-5)
            q = twin.attention.q(h)
            torch.testing.assert_close(q, layer.attention.q(h), atol=1e-6, rtol=1e-5)
    assert Engine(model).runner.head(x).shape[1] == VOCAB
