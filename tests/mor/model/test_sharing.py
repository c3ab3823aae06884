"""Tied layers are one parameter: the model holds what the layout says, and nothing twice."""

from __future__ import annotations

import pytest

from mor.config import SizeConfig
from mor.model.sharing import layout
from mor.model.transformer import Transformer
from tests.mor.model.variants import ALL, SIZE, VOCAB, build, recursive

NINE = SizeConfig("nine", n_layers=9, d_model=32, n_heads=4, n_kv_heads=2, d_head=8, d_ff=48)


@pytest.mark.parametrize(
    ("sharing", "depths"),
    [
        ("cycle", (0, 1, 2) * 3),
        ("sequence", (0, 0, 0, 1, 1, 1, 2, 2, 2)),
        ("middle_cycle", (0, *(1, 2, 3) * 3, 4)),
        ("middle_sequence", (0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4)),
    ],
)
def test_the_papers_example(sharing: str, depths: tuple[int, ...]) -> None:
    assert layout(recursive(sharing=sharing), NINE).depths == depths


def router_tensors(model: Transformer) -> tuple[int, int]:
    """Tensors and parameters of the routers, from the configuration."""
    config, d = model.model.router, SIZE.d_model
    if config.type == "none":
        return 0, 0
    n_recursions = model.model.n_recursions
    routers, out = (n_recursions, 1) if config.type == "expert" else (1, n_recursions)
    if config.type == "expert" and config.sampling == "aux_router":
        routers *= 2
    if config.network == "linear":
        return routers, routers * d * out
    return 2 * routers, routers * (2 * d * d + 2 * d * out)


@pytest.mark.parametrize("name", ALL)
def test_unique_tensors_and_parameters(name: str) -> None:
    model = build(ALL[name])
    order, config = model.layout, model.model
    unique = len(set(order.depths))
    computing = unique
    if config.kv == "shared":
        computing = len({*order.prologue, *order.recursions[0], *order.epilogue})
    d, ff, kv = SIZE.d_model, SIZE.d_ff, SIZE.n_kv_heads * SIZE.d_head
    tensors, numbers = router_tensors(model)
    tensors += 2 + 7 * unique + 2 * computing
    numbers += (VOCAB + 1) * d
    numbers += unique * (2 * d * d + 3 * d * ff + 2 * d) + computing * 2 * d * kv

    parameters = list(model.parameters())
    assert len(parameters) == len({p.data_ptr() for p in parameters}) == tensors
    assert sum(p.numel() for p in parameters) == numbers
