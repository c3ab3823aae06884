"""A change of speed leaves the loss as it is: twenty steps each way."""

from __future__ import annotations

import gc
from functools import partialmethod

import pytest
import torch
import torch._dynamo.testing

from mor.config import RuntimeConfig
from mor.model.layers import Layer
from mor.model.losses import chunked_loss, whole_loss
from mor.model.speed import compiles
from tests.memory import kept_for_backward
from tests.mor.model.variants import ALL, build, draw

NAMES = ["vanilla", "recursive-shared-lora", "expert", "expert-shared", "expert-hybrid", "token"]
NAMES += ["vanilla-cycle-2", "expert-prompt"]


def train(name: str, runtime: RuntimeConfig, steps: int = 20) -> list[float]:
    model, losses = build(ALL[name]), []
    model.set_speed(runtime)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        out = model(*draw(2, 19, seed=step), step=step, keep_logits=False)
        optimizer.zero_grad()
        out.total_loss.backward()
        optimizer.step()
        losses.append(out.total_loss.item())
    return losses


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "switch", [{"loss_chunk": 7}, {"recompute": "recursion"}, {"recompute": "layer"}], ids=str
)
def test_twenty_steps_have_the_same_losses(name: str, switch: dict) -> None:
    plain, switched = train(name, RuntimeConfig()), train(name, RuntimeConfig(**switch))
    assert plain[-1] != plain[0]
    assert switched == pytest.approx(plain, abs=2e-4)


@pytest.mark.parametrize("name", ["recursive-cycle-shared", "expert-hybrid", "token"])
def test_compiled_layers_have_the_same_losses(name: str, monkeypatch) -> None:
    """Traced and differentiated as a compiler would; code generation is in the slow test."""
    torch._dynamo.reset()
    monkeypatch.setattr(Layer, "compile", partialmethod(Layer.compile, backend="aot_eager"))
    compiled = train(name, RuntimeConfig(compile=True), steps=5)
    assert compiled == pytest.approx(train(name, RuntimeConfig(), steps=5), abs=2e-4)


def test_expert_choice_is_compiled_for_the_shapes_of_training_only(monkeypatch) -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(Layer, "compile", partialmethod(Layer.compile, backend=counter))
    model = build(ALL["expert"])
    model.set_speed(RuntimeConfig(compile=True))
    for seed in range(4):
        tokens, targets = draw(2, 16, seed)
        model(tokens, targets).total_loss.backward()
    compiled = counter.frame_count
    assert compiled == len({16, 10, 5})  # tokens of the three recursions
    plain = build(ALL["expert"])
    plain.load_state_dict(model.state_dict())
    for seed in range(4):
        tokens = draw(2, 16, seed)[0]
        with torch.no_grad():
            causal, expected = (m(tokens, routing="causal").logits for m in (model, plain))
        torch.testing.assert_close(causal, expected)
    # The layers around the recursions see every token: once more, without gradients.
    assert counter.frame_count <= compiled + 1


@pytest.mark.parametrize(
    ("asked", "device", "stable", "compiled"),
    [
        ("auto", "cuda", True, True),
        ("auto", "cuda", False, False),
        ("auto", "cpu", True, False),
        (True, "cpu", False, True),
        (False, "cuda", True, False),
    ],
)
def test_auto_compiles_on_a_gpu_where_shapes_never_change(asked, device, stable, compiled) -> None:
    assert compiles(asked, torch.device(device), stable) is compiled


def test_every_micro_batch_that_is_tried_is_compiled(monkeypatch) -> None:
    """Three recursions of four sizes: more shapes than torch compiles of one function by itself."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(Layer, "compile", partialmethod(Layer.compile, backend=counter))
    model = build(ALL["expert"])
    with torch._dynamo.config.patch(recompile_limit=8):
        model.set_speed(RuntimeConfig(compile=True))
        for sequences in (1, 2, 8, 4):
            model(*draw(sequences, 16, 0)).total_loss.backward()
    assert counter.frame_count == 3 * 4


@pytest.mark.slow
def test_generated_code_has_the_same_losses() -> None:
    torch._dynamo.reset()
    compiled = train("expert", RuntimeConfig(compile=True))
    assert compiled == pytest.approx(train("expert", RuntimeConfig()), abs=2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [1, 6, 23, 100])
def test_chunked_loss_and_gradients_are_the_whole_ones(chunk: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 8, generator=generator) for n in (23, 31))
    targets = torch.randint(31, (23,), generator=generator)
    targets[::5] = -100
    found = []
    for loss_of in (
        lambda x, w: whole_loss(torch.nn.functional.linear(x, w).float(), targets),
        lambda x, w: chunked_loss(x, w, targets, chunk),
    ):
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            loss = loss_of(a.to(dtype), b)
        (3 * loss).backward()
        found.append((loss, a.grad, b.grad))
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for whole, chunked in zip(*found, strict=True):
        assert whole.dtype == chunked.dtype
        torch.testing.assert_close(chunked, whole, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("recompute", ["recursion", "layer"])
def test_recomputing_chooses_no_token_again(recompute: str) -> None:
    model, calls = build(ALL["expert"]), []
    model.set_speed(RuntimeConfig(recompute=recompute))
    model.routers[1].register_forward_hook(lambda *_: calls.append("router"))
    model.layers[1].attention.register_forward_hook(lambda *_: calls.append("layer"))
    model(*draw(2, 19)).total_loss.backward()
    assert calls.count("router") == 1
    assert calls.count("layer") == 2 * 3  # recursions, forward and again


def saved_bytes(name: str, runtime: RuntimeConfig) -> int:
    """Bytes that a forward pass keeps for its backward, weights left out."""
    model = build(ALL[name])
    model.set_speed(runtime)
    with kept_for_backward(model) as kept:
        out = model(*draw(4, 64), keep_logits=False)
    total = sum(kept.values())
    del out
    gc.collect()
    return total


@pytest.mark.parametrize("switch", [{"recompute": "recursion"}, {"recompute": "layer"}], ids=str)
@pytest.mark.parametrize("name", ["expert", "recursive-cycle-recursion"])
def test_recomputing_keeps_less(name: str, switch: dict) -> None:
    assert saved_bytes(name, RuntimeConfig(**switch)) < 0.6 * saved_bytes(name, RuntimeConfig())
