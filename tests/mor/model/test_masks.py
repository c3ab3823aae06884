"""Block masks see what dense ones see: any places, and every model that needs a mask."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mor.config import RuntimeConfig
from mor.model.attention import attend
from mor.model.masks import BLOCK, Blocks, Places, attend_blocks, block_mask, dense_mask
from tests.mor.model.variants import ALL, ROUTED, build, draw

MASKED = sorted(
    name for name, model in ALL.items()
    if model.document_mask or (name in ROUTED and model.kv in ("shared", "hybrid"))
)  # fmt: skip


def grid(batch: int, length: int, n: int, pads: int, seed: int) -> torch.Tensor:
    """Ascending positions of n tokens of each sequence; the last `pads` of the first are none."""
    generator = torch.Generator().manual_seed(seed)
    found = [torch.randperm(length, generator=generator)[:n].sort().values for _ in range(batch)]
    positions = torch.stack(found)
    if pads:
        positions[0, -pads:] = length
    return positions


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=3, max_size=3),
    pads=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    documents=st.sampled_from([None, 1, 7, 90]),
    ragged=st.booleans(),
    seed=st.integers(0, 99),
)
def test_blocks_see_what_a_dense_mask_sees(sizes, pads, documents, ragged, seed):
    """Queries and keys at any places: of every real query that sees a key, the same mixture."""
    length, n, m = max(sizes), min(sizes), sorted(sizes)[1]
    own = grid(2, length, n, min(pads[0], n - 1) if ragged else 0, seed)
    other = grid(2, length, m, min(pads[1], m - 1) if ragged else 0, seed + 1)
    numbers = None
    if documents:
        drawn = torch.randint(0, documents, (2, length), generator=torch.Generator().manual_seed(3))
        numbers = torch.cat([(drawn == 0).cumsum(1), torch.full((2, 1), -1)], 1)

    def places(positions: torch.Tensor) -> Places:
        found = None if numbers is None else numbers.gather(1, positions)
        return Places(positions, found, length, length if ragged else positions.shape[1])

    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(2, 4, n, 8, generator=generator)
    k, v = (torch.randn(2, 2, m, 8, generator=generator) for _ in "kv")
    dense = dense_mask(places(own), places(other), torch.float32)
    blocks = block_mask(places(own), places(other))
    visible = (dense[:, 0] == 0) & (own < length)[:, :, None] & (other < length)[:, None, :]
    real = visible.any(-1)  # (B, n)
    reference = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=dense.masked_fill(~visible[:, None], -torch.inf), enable_gqa=True
    )
    found = attend_blocks(q, k, v, blocks)
    torch.testing.assert_close(found.transpose(1, 2)[real], reference.transpose(1, 2)[real],
                               atol=1e-5, rtol=1e-5)  # fmt: skip
    assert not found.isnan().any()  # rows that see nothing, and pads


def test_blocks_that_nobody_sees_cost_nothing():
    n = 4 * BLOCK
    positions = torch.arange(n)[None]
    places = Places(positions, None, n, n)
    mask = block_mask(places, places).mask
    assert mask.kv_num_blocks.flatten().tolist() == [1, 1, 1, 1]  # the diagonal
    assert mask.full_kv_num_blocks.flatten().tolist() == [0, 1, 2, 3]
    apart = Places(positions, positions // (2 * BLOCK), n, n)
    mask = block_mask(apart, apart).mask
    assert mask.full_kv_num_blocks.flatten().tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("routing", ["topk", "causal"])
@pytest.mark.parametrize("name", MASKED)
@torch.no_grad()
def test_every_masked_model_is_the_same_in_blocks(name, routing):
    """Logits under block masks, run by FlexAttention's reference on the CPU, against dense ones."""
    model = build(ALL[name])
    tokens, _ = draw(2, 150)  # more than one block
    dense = model(tokens, routing=routing).logits
    model.speed = dataclasses.replace(model.speed, masks="blocks")
    seen = []
    from mor.model import attention

    whole = attention.attend_blocks
    try:
        attention.attend_blocks = lambda *given_: seen.append(given_[3]) or whole(*given_)
        blocks = model(tokens, routing=routing).logits
    finally:
        attention.attend_blocks = whole
    assert seen
    assert all(isinstance(mask, Blocks) for mask in seen)
    torch.testing.assert_close(blocks, dense, atol=2e-4, rtol=2e-4)


def test_auto_is_dense_on_a_cpu_and_blocks_on_a_gpu():
    model = build(ALL["expert-shared"])
    for masks, on_cpu, on_gpu in (
        ("auto", False, True), ("dense", False, False), ("blocks", True, True)
    ):  # fmt: skip
        model.set_speed(RuntimeConfig(masks=masks))
        devices = torch.device("cpu"), torch.device("cuda:0")
        assert tuple(map(model.speed.in_blocks, devices)) == (on_cpu, on_gpu)


@pytest.mark.parametrize("causal", [True, False])
def test_grouped_heads_are_what_repeated_ones_are(causal):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 6, 5, 8, generator=generator)
    k, v = (torch.randn(2, 2, 5, 8, generator=generator) for _ in "kv")
    repeated = [x.repeat_interleave(3, 1) for x in (k, v)]
    torch.testing.assert_close(
        attend(q, k, v, is_causal=causal), attend(q, *repeated, is_causal=causal)
    )
