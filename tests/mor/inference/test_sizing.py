"""How pools are shared out, and that maps and norms made for inference are the model's own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pool_tokens", 10**12),
        ("pool_tokens", 10**30),
        ("kv_bytes", 2**60),
        ("kv_bytes", float("inf")),
        ("kv_bytes", 0),
        ("kv_bytes", "1e9"),
        ("max_batch", 1.5),
        ("max_batch", None),
        ("chunk", "a"),
        ("page", True),
        ("page", float("nan")),
        ("context", [32]),
        ("context", 10**12),
        ("mean_depth", "x"),
        ("mean_depth", float("nan")),
    ],
)
def test_settings_that_no_engine_has_are_one_sentence(name: str, value: object) -> None:
    model = build(ALL["expert"], seed=1)
    with pytest.raises(EngineError) as refused:
        Engine(model, Settings(**{name: value}))  # type: ignore[arg-type]
    assert str(refused.value).startswith(f"{name}=")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["pool_tokens", "kv_bytes"])
def test_what_is_told_in_place_of_too_much_fits(name: str) -> None:
    model = build(ALL["expert"], seed=1)
    with pytest.raises(EngineError) as refused:
        Engine(model, Settings(**{name: 2**60}))  # type: ignore[arg-type]
    most = int(str(refused.value).split()[-3])
    needed = {"pool_tokens": most * model.size.d_model, "kv_bytes": most}
    assert 2**20 < needed[name] < 2**50


def test_a_memory_that_is_refused_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container's limit or a GPU's allocator has it."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr("mor.inference.sizing.Pool", refuse)
    for settings in (Settings(pool_tokens=64), Settings(kv_bytes=2**20), Settings()):
        with pytest.raises(EngineError):
            Engine(build(ALL["expert"], seed=1), settings)


def test_numbers_of_other_kinds_are_whole_numbers() -> None:
    model = build(ALL["expert"], seed=1)
    given = Settings(context=np.int64(32), kv_bytes=65536.0, page=np.int32(2))  # type: ignore[arg-type]
    engine, like = Engine(model, given), Engine(model, Settings(context=32, kv_bytes=BYTES, page=2))
    assert engine.settings == like.settings
    assert engine.pools[0].pages == like.pools[0].pages


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
