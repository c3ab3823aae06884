"""Looped models: injection, random depth, truncated backpropagation and what they cost."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mor.config import ConfigError, ModelConfig
from mor.flops import Routed, cost_model, count_params, planned_routing
from mor.inference.decode import Decoder
from mor.model.components import check_model, n_blocks
from mor.model.recurrence.looped_spec import LOOPED, LoopedOptions, distribution
from tests.mor.model.variants import SIZE, VOCAB, build, draw, recursive

LENGTH = 16


def looped(
    injection: str = "add", loops: str = "fixed", kept: int | None = None, **changes
) -> ModelConfig:
    options = LoopedOptions(injection, loops, kept)
    return recursive(architecture="looped", options=options, **changes)


def test_injection_starts_as_a_sum_or_a_mean() -> None:
    tokens, _ = draw(2, LENGTH)
    add, concat, gate = (build(looped(kind))(tokens).logits for kind in ("add", "concat", "gate"))
    torch.testing.assert_close(add, concat, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(add, gate)


@pytest.mark.parametrize("kind", ["add", "concat", "gate"])
def test_it_equals_the_plain_loop(kind: str) -> None:
    model = build(looped(kind), seed=1)
    with torch.no_grad():
        for weight in model.injection.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    tokens, _ = draw(2, LENGTH)
    seen: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _m, inputs, out: seen.extend((inputs[0], out[0])))
        for layer in model.layers
    ]
    model(tokens)
    for hook in hooks:
        hook.remove()
    inputs, outputs = seen[0::2], seen[1::2]  # prelude, 3 loops of 2 layers, coda
    e = outputs[0]
    assert torch.equal(inputs[1], e)
    for first in (3, 5):
        torch.testing.assert_close(inputs[first], model.injection(outputs[first - 1], e))
    assert torch.equal(inputs[7], outputs[6])


def test_depth_draws_depend_on_seed_and_step_and_have_the_mean() -> None:
    model = looped(loops="poisson")
    draws = [LOOPED.loops_at(model, 0, step) for step in range(20_000)]
    assert draws == [LOOPED.loops_at(model, 0, step) for step in range(20_000)]
    assert draws[:50] != [LOOPED.loops_at(model, 1, step) for step in range(50)]
    assert statistics.mean(draws) == pytest.approx(3, abs=0.05)
    shares = distribution(3)
    assert sum(shares) == pytest.approx(1)
    for loops in (1, 2, 3, 5):
        assert draws.count(loops) / 20_000 == pytest.approx(shares[loops - 1], abs=0.015)


def test_training_refuses_to_guess_the_step() -> None:
    model = build(looped(loops="poisson")).train()
    with pytest.raises(ValueError, match="step"):
        model(*draw(1, LENGTH))


def test_gradients_flow_through_the_last_loops_only() -> None:
    whole, cut = build(looped(kept=None)), build(looped(kept=1))
    tokens, targets = draw(2, LENGTH)
    a, b = whole(tokens, targets), cut(tokens, targets)
    assert a.loss.item() == b.loss.item()
    a.loss.backward()
    b.loss.backward()
    assert b.routed.without_gradient == 2
    assert b.routed.forward_only() == ((32, 32, 0.0), (272, 272, 0.0))
    assert not torch.allclose(whole.layers[1].mlp.up.weight.grad, cut.layers[1].mlp.up.weight.grad)
    assert cut.layers[0].mlp.up.weight.grad.abs().sum() > 0  # the prelude, through the injection


@pytest.mark.parametrize("kind", ["add", "concat"])
@pytest.mark.parametrize("kept", [1, 2, None])
def test_exact_flops_are_those_of_torchs_counter(kind: str, kept: int | None) -> None:
    model = looped(kind, kept=kept)
    built = build(model)
    tokens, targets = draw(2, LENGTH)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = built(tokens, targets)
        out.loss.backward()
    tokens_, square = tuple(map(float, out.routed.tokens)), 2 * LENGTH**2
    forward, _ = out.routed.forward_only()
    pairs = tuple(square if t else 0.0 for t in tokens_)  # the math kernel computes whole squares
    work = Routed(
        2.0 * LENGTH,
        tokens_,
        pairs,
        forward,
        pairs[: out.routed.without_gradient] + (0.0,) * (3 - out.routed.without_gradient)
        if forward
        else (),
    )
    cost = cost_model(model, SIZE, VOCAB, "exact")
    unshared = cost.fixed_pair * (square - 2 * LENGTH * (LENGTH + 1) / 2)
    assert counter.get_total_flops() == pytest.approx(cost.flops(work, LENGTH) + unshared, rel=1e-3)


def test_planned_work_is_the_mean_over_steps() -> None:
    model = looped(loops="poisson", kept=2)
    built = build(model)
    total, steps = Routed(0.0, (), ()), 300
    tokens, _ = draw(1, 4)
    for step in range(steps):
        routed = built(tokens, step=step).routed
        work = tuple(map(float, routed.tokens)), tuple(map(float, routed.pairs))
        total = total + Routed(4.0, *work, *routed.forward_only())
    planned = planned_routing(model, SIZE, 4)
    assert len(planned.tokens) == n_blocks(model, SIZE) == 12
    for found, mean in (
        (total.tokens, planned.tokens),
        (total.forward_tokens, planned.forward_tokens),
    ):
        assert sum(found) / steps == pytest.approx(sum(mean), rel=0.1)


@pytest.mark.parametrize("kind", ["add", "concat", "gate"])
def test_parameters_are_counted(kind: str) -> None:
    model = looped(kind)
    built = build(model)
    assert sum(p.numel() for p in built.parameters()) == count_params(model, SIZE, VOCAB).total


def test_it_may_loop_more_often_at_inference_and_decodes_the_same() -> None:
    model = build(looped("gate"))
    tokens, _ = draw(2, LENGTH)
    depths = {n: model(tokens, max_recursions=n) for n in (1, 3, 6)}
    assert [out.routed.tokens[:n] for n, out in depths.items()] == [[32] * n for n in depths]
    whole, decoder = model(tokens, routing="causal"), Decoder(model, 2)
    assert torch.equal(whole.logits, depths[3].logits)
    for position in range(LENGTH):
        step = decoder.step(tokens[:, position])
        torch.testing.assert_close(
            step.logits[:, 0], whole.logits[:, position], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(
    ("wrong", "setting"),
    [
        (looped("sum"), "model.injection"),
        (looped(loops="normal"), "model.loops"),
        (looped(kept=9), "model.backprop_recursions"),
        (looped(sharing="sequence"), "model.sharing"),
        (looped(kv="shared", kept=1), "model.kv"),
    ],
)
def test_wrong_settings_are_refused_by_name(wrong: ModelConfig, setting: str) -> None:
    with pytest.raises(ConfigError) as found:
        check_model(wrong, SIZE)
    assert found.value.setting == setting
