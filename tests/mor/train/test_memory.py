"""Micro-batches: what is chosen, what is remembered, and running out of memory on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ledger.folder import RunFolder
from mor.data.batches import Batches
from mor.data.prepare import prepare
from mor.train.memory import FILE, MicroBatch, OutOfMemory, fitting
from mor.train.run import Hooks, train_run
from mor.train.trainer import Trainer
from tests.mor.train.test_run import final

GB = 2.0**30


@pytest.mark.parametrize(
    ("peaks", "limit", "size"),
    [
        ((10 * GB, 12 * GB), 72 * GB, 32),  # 1 + 31 more: exactly full
        ((10 * GB, 12 * GB), 71 * GB, 24),
        ((10 * GB, 12 * GB), 1e15, 96),
        ((90 * GB, 95 * GB), 72 * GB, 1),  # it ran, so one fits
        ((10 * GB, 10 * GB), 72 * GB, 96),  # too small to measure
    ],
)
def test_the_largest_divisor_that_fits(peaks, limit, size):
    assert fitting(96, peaks, limit) == size


def short_of_memory(
    monkeypatch,
    at: int = 0,
    phase: str = "forward",
    more_than: int | None = None,
    recomputed: bool = True,
) -> None:
    """Run out of memory in micro-batch number `at` (from 1), or in all of `more_than` sequences,
    also where layers are `recomputed`."""
    whole, count = Trainer._micro_batch, iter(range(1, 10**6))

    def fail(self, part, *arguments):
        loss = whole(self, part, *arguments)
        large = more_than is not None and part.stop - part.start > more_than
        large &= recomputed or self.model.speed.recompute != "layer"
        if next(count) == at or large:
            if phase == "backward":
                loss.register_hook(run_out)
            else:
                run_out()
        return loss

    def run_out(*_):
        raise torch.OutOfMemoryError("injected")

    monkeypatch.setattr(Trainer, "_micro_batch", fail)


@pytest.mark.parametrize("phase", ["forward", "backward"])
@pytest.mark.parametrize("architecture", ["mor", "mor_token"])
def test_out_of_memory_leaves_no_trace(architecture, phase, toy_run, tmp_path, monkeypatch, caplog):
    """A first step that fails gives the bits of a run that had the smaller size all along."""
    config = toy_run(architecture, steps=6)
    halves = replace(config, runtime=replace(config.runtime, micro_batch=2))
    a, b = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    train_run(halves, a, None, Hooks())
    seen: list[int] = []
    short_of_memory(monkeypatch, at=1, phase=phase)
    train_run(config, b, None, Hooks(lambda status: seen.append(status["micro_batch"])))
    assert final(a.path) == final(b.path)
    assert a.result().loss == b.result().loss
    assert a.result().flops == b.result().flops
    assert "out of memory with 4 sequences in one forward: going on with 2" in caplog.text
    assert seen[-1] == 2
    lines = [json.loads(line) for line in b.metrics_file.read_text().splitlines()]
    assert {line["micro_batch"] for line in lines} == {2}


def test_a_size_that_fell_short_is_not_tried_by_the_next_attempt(toy_run, tmp_path, monkeypatch):
    """In the middle of a step's micro-batches, too: the second of two."""
    config = toy_run("mor", steps=5)
    halves = replace(config, runtime=replace(config.runtime, micro_batch=2))
    short_of_memory(monkeypatch, at=2)
    run = RunFolder(tmp_path / "run")
    train_run(halves, run, None, Hooks())
    assert run.result().tokens == 5 * 4 * 32  # what the failed step had routed is not counted
    assert list(json.loads((run.path / FILE).read_text()).values()) == [1]
    assert MicroBatch(config, torch.device("cpu"), 1, run.path).size == 1
    longer = replace(config, train=replace(config.train, seq_len=64))  # another shape: whole again
    assert MicroBatch(longer, torch.device("cpu"), 1, run.path).size == 4


@pytest.fixture
def gpu(monkeypatch) -> torch.device:
    """A GPU that only says its name and size: 80 GiB."""
    properties = SimpleNamespace(total_memory=80 * GB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    return torch.device("cuda", 0)


def test_auto_measures_two_sizes_on_a_gpu_once(toy_run, tmp_path, gpu):
    config = toy_run("mor", batch_size=64)
    asked: list[int] = []

    def peak(sequences: int) -> float:
        asked.append(sequences)
        return (10 + 6 * sequences) * GB

    first = MicroBatch(config, gpu, 2, tmp_path)
    assert first.size is None
    first.measure(peak, least=lambda size: size)  # 90 % of 80 GiB hold 10, and 10 of 6
    assert asked == [1, 2]
    assert first.size == 8  # the largest divisor of a rank's 32
    assert first.parts() == [slice(i, i + 8) for i in (0, 8, 16, 24)]
    again = MicroBatch(config, gpu, 2, tmp_path)
    assert again.size == 8
    assert first.peak() == again.peak() == (16 * GB / 1e9, 1)  # of one sequence, whatever fits
    assert MicroBatch(config, torch.device("cpu"), 2).peak() is None
    assert MicroBatch(config, gpu, 1, tmp_path).size is None  # another share of the batch
    smaller = MicroBatch(config, gpu, 4, tmp_path)
    smaller.measure(peak, least=lambda size: 2)  # a rank with less room
    assert smaller.size == 2


@pytest.mark.parametrize("architecture", ["mor", "recursive"])
def test_layers_are_recomputed_where_a_single_sequence_does_not_fit(
    architecture, toy_run, tmp_path, monkeypatch
):
    """The bits of a run of single sequences, and the next attempt begins with it."""
    config = toy_run(architecture, steps=6)
    single = replace(config, runtime=replace(config.runtime, micro_batch=1))
    a, b = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    train_run(single, a, None, Hooks())
    short_of_memory(monkeypatch, more_than=0, recomputed=False)
    train_run(config, b, None, Hooks())
    assert final(a.path) == final(b.path)
    again = MicroBatch(config, torch.device("cpu"), 1, b.path)
    assert (again.size, again.recomputes) == (1, True)
    asked = replace(config, runtime=replace(config.runtime, recompute="none"))
    with pytest.raises(OutOfMemory):
        train_run(asked, RunFolder(tmp_path / "c"), None, Hooks())


def test_a_gpu_measures_again_with_layers_recomputed(toy_run, tmp_path, gpu):
    config, sizes = toy_run("mor", batch_size=8), list[int]()
    first = MicroBatch(config, gpu, 1, tmp_path)

    def peak(sequences: int) -> float:
        sizes.append(sequences)
        if not first.recomputes or sequences > 1:
            raise torch.OutOfMemoryError("injected")
        return 60 * GB

    first.measure(peak, least=lambda size: size)
    assert first.size is None
    assert first.recomputes
    first.remember()
    assert MicroBatch(config, gpu, 1, tmp_path).recomputes
    first.measure(peak, least=lambda size: size)
    assert (first.size, sizes) == (1, [1, 1, 2])  # two do not fit, one does
    again = MicroBatch(config, gpu, 1, tmp_path)
    assert (again.size, again.recomputes) == (1, True)


def test_a_peak_is_measured_above_gradients(toy_run, monkeypatch):
    """As in a step of several micro-batches; else the first peak is that of the gradients."""
    config, there = toy_run("mor", steps=5), list[bool]()
    batches = Batches(prepare(config.data), config.train.seq_len, 4, 0)
    trainer = Trainer(config, batches, torch.device("cpu"))
    monkeypatch.setattr(
        torch.cuda,
        "reset_peak_memory_stats",
        lambda device: there.append(all(p.grad is not None for p in trainer.model.parameters())),
    )
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 7)
    assert trainer._peak_memory(1) == 7
    assert there == [True]
    assert all(p.grad is None for p in trainer.model.parameters())


def test_a_number_is_kept_where_the_ranks_can_take_it(toy_run):
    config = toy_run("mor", batch_size=12)
    given = replace(config, runtime=replace(config.runtime, micro_batch=4))
    sizes = [MicroBatch(given, torch.device("cpu"), n).size for n in (1, 2, 3, 4, 6)]
    assert sizes == [4, 3, 4, 3, 2]


def test_one_sequence_that_does_not_fit_is_refused_in_one_sentence(toy_run, tmp_path, monkeypatch):
    config = toy_run("mor", steps=5)
    config = replace(config, runtime=replace(config.runtime, recompute="none"))
    short_of_memory(monkeypatch, more_than=0)
    with pytest.raises(
        OutOfMemory, match=r"a single sequence of mor-tiny.*runtime\.recompute=layer"
    ):
        train_run(config, RunFolder(tmp_path / "run"), None, Hooks())
