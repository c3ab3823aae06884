"""On a GPU: the CPU's losses, resume, host synchronisations, memory, running out of it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mor.config import Config, DataConfig, ModelConfig, RuntimeConfig, SizeConfig, TrainConfig
from mor.evaluate.validation import final_validation
from mor.train.trainer import Trainer
from sweeps.resources import memory
from tests.fake_gpu.cases import BATCH, LENGTH, Batches
from tests.mor.model.test_looped import looped
from tests.mor.model.test_mod import mod
from tests.mor.model.variants import ALL, VOCAB

pytestmark = pytest.mark.gpu

# Heads as wide as the kernels ask for; more than one block of 128 tokens in a sequence.
SIZE = SizeConfig("wide", n_layers=8, d_model=128, n_heads=2, n_kv_heads=1, d_head=64, d_ff=256)
MODELS: dict[str, ModelConfig] = {
    **{name: ALL[name] for name in (
        "vanilla", "vanilla-cycle-2", "recursive-cycle-shared", "recursive-documents",
        "recursive-dora", "expert", "expert-shared", "expert-hybrid", "expert-aux-router",
        "expert-shared-documents", "token", "token-shared", "token-loss-free",
    )},
    "mod": mod(capacity=(0.5,)),
    "looped": looped("gate"),
}  # fmt: skip
STEPS = 3


def trainer_of(
    model: str,
    device: torch.device,
    precision: str = "fp32",
    size: SizeConfig = SIZE,
    batch_size: int = BATCH,
    **runtime: Any,
) -> Trainer:
    torch.manual_seed(0)
    config = Config(
        MODELS[model],
        size,
        DataConfig(vocab_size=VOCAB),
        TrainConfig(batch_size=batch_size, seq_len=LENGTH, precision=precision, lr=1e-3),
        runtime=RuntimeConfig(
            device=device.type, **{"micro_batch": 1, "compile": False, **runtime}
        ),
    )
    return Trainer(config, Batches(batch_size), device)  # type: ignore[arg-type]


def losses(trainer: Trainer, steps: int = STEPS) -> list[float]:
    return [trainer.step(1.0)["loss"] for _ in range(steps)]


@pytest.mark.parametrize("model", MODELS)
def test_losses_are_the_cpus(model: str, gpu: torch.device) -> None:
    """In fp32, over some steps, and in both validations. A token at the edge of a router's choice
    may go the other way, most often under the causal rule of a router that has seen three steps:
    that moves a loss by less than the tolerance (measured: 0.009 for mod, causal)."""
    here, there = trainer_of(model, torch.device("cpu")), trainer_of(model, gpu)
    assert losses(there) == pytest.approx(losses(here), rel=2e-3)
    given = [final_validation(t.model, t.batches, LENGTH, t.precision()) for t in (here, there)]
    assert given[0].losses.keys() == given[1].losses.keys()
    for name, value in given[0].losses.items():
        near = 3e-2 if "causal" in name else 5e-3
        assert given[1].losses[name] == pytest.approx(value, rel=near), name


@pytest.mark.parametrize("model", ["vanilla", "recursive-cycle-shared", "expert", "token-shared"])
@pytest.mark.parametrize("runtime", [{}, {"compile": True}], ids=["eager", "compiled"])
def test_bf16_is_near_fp32(model: str, runtime: dict[str, Any], gpu: torch.device) -> None:
    exact = losses(trainer_of(model, gpu))
    assert losses(trainer_of(model, gpu, "bf16", **runtime)) == pytest.approx(exact, rel=2e-2)


@pytest.mark.parametrize("model", ["recursive-cycle-shared", "expert-hybrid", "token-shared"])
def test_block_masks_train_as_dense_ones(model: str, gpu: torch.device) -> None:
    if gpu.type == "cpu":
        pytest.skip("FlexAttention has no backward on the CPU")
    dense = losses(trainer_of(model, gpu, masks="dense"))
    assert losses(trainer_of(model, gpu, masks="blocks")) == pytest.approx(dense, rel=2e-3)


@pytest.mark.parametrize("model", ["vanilla", "expert", "recursive-cycle-shared"])
def test_the_host_waits_once_a_step(model: str, gpu: torch.device) -> None:
    """Losses and the gradient's norm are read together; nothing else is."""
    if gpu.type == "cpu":
        pytest.skip("torch counts synchronisations of a GPU only")
    trainer = trainer_of(model, gpu, "bf16")
    trainer.step(1.0)
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.step(1.0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [one for one in seen if "called a synchronizing" in str(one.message)]
    assert len(waits) <= 1, [f"{one.filename}:{one.lineno}" for one in waits]


@pytest.mark.parametrize("model", ["vanilla", "expert", "token"])
def test_a_resumed_run_goes_on_as_before(model: str, gpu: torch.device, tmp_path: Path) -> None:
    """To the order of additions: on a GPU the bits may differ."""
    whole = losses(trainer_of(model, gpu), 6)
    first = trainer_of(model, gpu)
    losses(first, 3)
    first.save(tmp_path / "checkpoint")
    second = trainer_of(model, gpu)
    assert second.restore([tmp_path / "checkpoint"]) is not None
    assert losses(second, 3) == pytest.approx(whole[3:], rel=1e-4)


@pytest.mark.parametrize("model", ["vanilla", "recursive-dora", "expert", "token"])
def test_a_step_needs_no_more_than_estimated(model: str, gpu: torch.device) -> None:
    """What the plan asks a node for, at a size where weights and activations count."""
    if gpu.type == "cpu":
        pytest.skip("torch counts the memory of a GPU only")
    size = replace(SIZE, d_model=768, n_heads=12, n_kv_heads=4, d_ff=2048)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    trainer = trainer_of(model, gpu, "bf16", size)
    losses(trainer, 2)
    peak = torch.cuda.max_memory_allocated() - before
    assert peak <= memory(trainer.config).total


@pytest.mark.parametrize("model", ["vanilla", "expert"])
def test_each_sequence_takes_what_the_measurement_says(model: str, gpu: torch.device) -> None:
    """The micro-batch is read off the peaks of 1 and of 2 sequences."""
    if gpu.type == "cpu":
        pytest.skip("torch counts the memory of a GPU only")
    size = replace(SIZE, d_model=768, n_heads=12, n_kv_heads=4, d_ff=2048)
    trainer = trainer_of(model, gpu, "bf16", size, batch_size=32)
    one, two, most = (trainer._peak_memory(n) for n in (1, 2, 32))
    assert most == pytest.approx(one + 31 * (two - one), rel=0.1)


def test_where_memory_runs_out_the_micro_batch_shrinks(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same losses after one forward of the whole batch has run out of memory."""
    expected = losses(trainer_of("expert", gpu))
    trainer = trainer_of("expert", gpu, micro_batch=BATCH)
    whole = trainer._micro_batch

    def short(part: slice, *rest: Any) -> torch.Tensor:
        if part.stop - part.start > 1:
            raise torch.OutOfMemoryError("planted")
        return whole(part, *rest)

    monkeypatch.setattr(trainer, "_micro_batch", short)
    assert losses(trainer) == pytest.approx(expected, rel=1e-4)
    assert trainer.micro_batch.size == 1
