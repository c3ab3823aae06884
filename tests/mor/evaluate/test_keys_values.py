"""Norms and cosines of keys and values across depths, against what must hold of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mor.data.batches import Batches
from mor.data.prepare import prepare
from mor.evaluate.keys_values import kv_statistics
from mor.model.transformer import Transformer
from tests.mor.model.variants import ALL, SIZE

PLAIN = torch.autocast("cpu", enabled=False)


@pytest.fixture
def measure(toy_run: Any) -> Any:
    """The statistics of an untrained variant on the toy corpus."""
    batches = Batches(prepare(toy_run().data), seq_len=32, batch_size=4, seed=0)

    def run(name: str, change: Any = None) -> tuple[Transformer, dict[str, Any]]:
        model = Transformer(ALL[name], SIZE, 256)
        if change:
            with torch.no_grad():
                change(model.layers[0])
        return model, kv_statistics(model, batches, 512, PLAIN)

    return run


@pytest.mark.parametrize("name", ["vanilla", "recursive-middle_cycle-recursion"])
def test_a_row_for_each_depth_as_executed(measure: Any, name: str) -> None:
    model, found = measure(name)
    depths = len(model.layout.depths)
    for kind in ("key", "value"):
        cosine = torch.tensor(found[f"{kind}_cosine"])
        assert len(found[f"{kind}_norm"]) == depths
        assert cosine.shape == (depths, depths)
        torch.testing.assert_close(cosine.diagonal(), torch.ones(depths))
        torch.testing.assert_close(cosine, cosine.T, atol=1e-4, rtol=0)
        assert cosine.abs().max() < 1.0001
        assert (cosine - torch.eye(depths)).abs().max() < 0.999  # no depth is another


def test_depths_that_read_another_have_its_keys_and_values(measure: Any) -> None:
    _, found = measure("vanilla-cycle-2")  # depth i + 4 of 8 reads depth i
    for kind in ("key", "value"):
        assert found[f"{kind}_norm"][:4] == pytest.approx(found[f"{kind}_norm"][4:])
        assert found[f"{kind}_cosine"][0][4] == pytest.approx(1)
        assert found[f"{kind}_cosine"][0][1] < 0.99


def test_twice_the_map_is_twice_the_norm(measure: Any) -> None:
    _, before = measure("vanilla")
    _, after = measure("vanilla", lambda layer: layer.attention.v.weight.mul_(2))
    assert after["value_norm"][0] == pytest.approx(2 * before["value_norm"][0], rel=1e-4)
    assert after["key_norm"][0] == pytest.approx(before["key_norm"][0], rel=1e-4)


def test_a_routed_model_is_refused(measure: Any) -> None:
    with pytest.raises(ValueError, match="different tokens"):
        measure("expert")
