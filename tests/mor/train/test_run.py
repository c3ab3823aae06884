"""Runs end to end, tiny: resume, trunks, the meter, what is written."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ledger.folder import RunFolder
from ledger.result import Result, Throughput
from mor.config import Config
from mor.train import checkpoint
from mor.train.folder import create_folder
from mor.train.loop import Diverged, Leg, Stopped, Trainer, train_leg
from mor.train.run import Hooks, _trainer, train_run, train_trunk
from mor.train.schedule import schedule

ALL = ["vanilla", "recursive", "mor", "mor_token"]


def train(config: Config, folder: Path, **hooks) -> Result:
    run = RunFolder(folder)
    train_run(config, run, None, Hooks(**hooks))
    return run.result()


def final(folder: Path) -> dict[str, bytes]:
    """The final weights and optimiser state, as bytes."""
    return _tensors(RunFolder(folder).final)


def _tensors(path: Path) -> dict[str, bytes]:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    out = path.parent / f"{path.name}.pt"
    dcp_to_torch_save(path, out)
    state = torch.load(out, weights_only=True)
    return {name: value.numpy().tobytes() for name, value in state.items()}


@pytest.mark.parametrize("architecture", ALL)
def test_a_run_learns_and_spends_its_budget(architecture, toy_run, tmp_path):
    config = toy_run(architecture, steps=150, lr=1e-2)
    result = train(config, tmp_path / "run")
    first = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(256), rel=0.02)
    assert result.loss["val_nll_causal"] < first["loss"] - 1.5
    assert result.flops.spent == pytest.approx(config.budget, rel=0.005)
    assert result.tokens == result.steps * 4 * 32
    if architecture != "mor":
        assert result.loss["val_nll_topk"] == result.loss["val_nll_causal"]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_speed_on_a_cpu_is_that_of_its_threads(threads, toy_run, tmp_path):
    config = toy_run("vanilla", steps=4)
    config = replace(config, runtime=replace(config.runtime, threads=threads))
    speed = train(config, tmp_path / "run").throughput
    assert (speed.device, speed.devices, speed.threads) == ("cpu", threads, threads)


def test_expert_choice_leaks_in_the_topk_loss_only(toy_run, tmp_path):
    result = train(toy_run("mor", steps=150, lr=1e-2), tmp_path / "run")
    assert result.loss["val_nll_topk"] != result.loss["val_nll_causal"]


@pytest.mark.parametrize("architecture", ["vanilla", "mor", "mor_token"])
def test_a_trunk_with_its_cooldown_equals_a_run_from_scratch(architecture, toy_run, tmp_path):
    config = toy_run(architecture, steps=30)
    whole = train(config, tmp_path / "whole")
    trunk = RunFolder(tmp_path / "trunk")
    train_trunk(config, trunk, Hooks())
    start = trunk.plateau(schedule(config).plateau_end)
    cooled = RunFolder(tmp_path / "cooled")
    train_run(config, cooled, start, Hooks())
    assert cooled.result().loss == whole.loss
    assert final(tmp_path / "cooled") == final(tmp_path / "whole")


def test_a_larger_budget_continues_the_trunk_and_a_smaller_one_is_the_same(toy_run, tmp_path):
    small, large = toy_run("mor", steps=20), toy_run("mor", steps=40)
    ends = [schedule(config).plateau_end for config in (small, large)]
    up, down = RunFolder(tmp_path / "up"), RunFolder(tmp_path / "down")
    for config in (small, large):
        train_trunk(config, up, Hooks())
    for config in (large, small):
        train_trunk(config, down, Hooks())
    for end in ends:
        assert _tensors(up.plateau(end)) == _tensors(down.plateau(end))
    steps = [json.loads(line)["step"] for line in up.metrics_file.read_text().splitlines()]
    assert steps == list(range(1, 33))  # 0.8 x 40, each once
    steps = [json.loads(line)["step"] for line in down.metrics_file.read_text().splitlines()]
    assert steps == list(range(1, 33))


@pytest.mark.parametrize("architecture", ["mor", "mor_token"])
def test_stopped_and_resumed_equals_uninterrupted(architecture, toy_run, tmp_path):
    config = toy_run(architecture, steps=30)
    whole = train(config, tmp_path / "whole")
    calls = iter(range(1000))
    with pytest.raises(Stopped):
        train(config, tmp_path / "cut", should_stop=lambda: next(calls) == 11)
    assert not (tmp_path / "cut/result.json").exists()
    resumed = train(config, tmp_path / "cut")
    assert resumed.loss == whole.loss
    assert final(tmp_path / "cut") == final(tmp_path / "whole")

    def losses(name: str) -> list[float]:
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    assert losses("cut") == losses("whole")


KILLED = """
import sys, yaml
from pathlib import Path
from ledger.folder import RunFolder
from mor.train.folder import read_config
from mor.train.run import Hooks, train_run
folder = RunFolder(Path(sys.argv[1]))
train_run(read_config(folder), folder, None, Hooks())
"""


def test_killed_at_any_moment_and_started_again_ends_with_the_same_bits(toy_run, tmp_path):
    """kill -9 at random moments after it got further, in the middle of checkpoints included."""
    config = toy_run("mor", steps=150)
    config = replace(config, runtime=replace(config.runtime, checkpoint_s=0.05))
    whole = train(config, tmp_path / "whole")
    folder = RunFolder(tmp_path / "killed")
    create_folder(folder, config)
    assert kill_at_random(folder, times=4, seed=0) >= 2
    assert (
        subprocess.run([sys.executable, "-c", KILLED, str(folder.path)], check=False).returncode
        == 0
    )
    assert folder.result().loss == whole.loss
    assert final(folder.path) == final(tmp_path / "whole")


def kill_at_random(folder: RunFolder, times: int, seed: int) -> int:
    """Start the run in processes and kill -9 each at a moment after it got further; how many were
    still running then."""
    moments, kills = random.Random(seed), 0
    for _ in range(times):
        before = _size(folder.metrics_file)
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder.path)])
        while process.poll() is None and _size(folder.metrics_file) <= before:
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.4))
        if process.poll() is None:
            process.kill()
            kills += 1
        process.wait()
    return kills


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_a_corrupt_checkpoint_is_named_and_the_one_before_taken(toy_run, tmp_path, caplog):
    config = toy_run("vanilla", steps=30)
    whole = train(config, tmp_path / "whole")
    folder = RunFolder(tmp_path / "cut")
    for stop_at in (10, 20):
        calls = iter(range(1000))
        with pytest.raises(Stopped):
            train(config, folder.path, should_stop=lambda: next(calls) == stop_at - 1)  # noqa: B023
    newest = max(folder.checkpoints.glob("step-*"))
    data = next(newest.glob("*.distcp"))
    torn = bytearray(data.read_bytes())
    torn[len(torn) // 2] ^= 1
    data.write_bytes(bytes(torn))
    with caplog.at_level("INFO"):
        resumed = train(config, folder.path)
    assert "corrupt checkpoint" in caplog.text
    assert newest.name in caplog.text
    assert f"resumed from step-{10:08d}" in caplog.text
    assert resumed.loss == whole.loss


def test_a_half_written_checkpoint_is_never_read(toy_run, tmp_path, monkeypatch):
    config = toy_run("vanilla", steps=10)
    trainer = _trainer(config)
    monkeypatch.setattr(checkpoint, "_digests", lambda folder: 1 / 0)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with pytest.raises(ZeroDivisionError):
        trainer.save(folder / "step-00000001")
    assert list(folder.iterdir()) == []
    assert checkpoint.candidates(folder) == []


def test_micro_batches_change_nothing(toy_run, tmp_path):
    """Gradient accumulation is where, not what: one batch or four parts, the same losses."""
    for architecture in ALL:
        config = toy_run(architecture, steps=15)
        parts = replace(config, runtime=replace(config.runtime, micro_batch=1))
        a = train(config, tmp_path / f"{architecture}-a")
        b = train(parts, tmp_path / f"{architecture}-b")
        assert a.loss["val_nll_causal"] == pytest.approx(b.loss["val_nll_causal"], rel=1e-5)
        assert a.flops.spent == b.flops.spent


def test_divergence_stops_the_run_and_says_where(toy_run, tmp_path):
    config = toy_run("vanilla", steps=60, lr=1e30, clip=1e30)
    with pytest.raises(Diverged, match=r"step \d+: loss"):
        train(config, tmp_path / "run")
    result = RunFolder(tmp_path / "run").result()
    assert result.status == "diverged"
    assert result.loss == {}


def test_bf16_trains(toy_run, tmp_path):
    fp32 = train(toy_run("mor", steps=60, lr=1e-2), tmp_path / "fp32")
    bf16 = train(toy_run("mor", steps=60, lr=1e-2, precision="bf16"), tmp_path / "bf16")
    assert bf16.loss["val_nll_causal"] == pytest.approx(fp32.loss["val_nll_causal"], rel=0.05)


def test_the_meter_counts_the_tokens_routed(toy_run, tmp_path):
    """Token choice spends what its tokens took, not what was planned for it."""
    config = toy_run("mor_token", steps=40)
    trainer = _trainer(config)
    leg = Leg(RunFolder(tmp_path / "run"), schedule(config), config.budget)
    depths = []

    def note(module, inputs, output):
        depths.append(output.routed.depths)

    trainer.model.register_forward_hook(note)
    train_leg(trainer, leg)
    per_recursion = [float(sum((d > r).sum() for d in depths)) for r in range(3)]
    assert list(trainer.meter.work.tokens) == per_recursion
    assert trainer.meter.work.processed == sum(d.numel() for d in depths)


def test_a_full_disk_leaves_the_checkpoint_before(toy_run, tmp_path):
    """A real full file system: 3 MiB of tmpfs in a mount namespace of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a small file system needs root and unshare")
    config = toy_run("mor", steps=60)
    config = replace(config, runtime=replace(config.runtime, checkpoint_s=0.0, keep_checkpoints=99))
    disk = tmp_path / "disk"
    disk.mkdir()
    source = tmp_path / "config"
    create_folder(RunFolder(source), config)
    script = (
        f"mount -t tmpfs -o size=3m none {disk} || exit 77; "
        f"mkdir {disk}/run && cp {source}/config.yaml {disk}/run/; "
        f"{sys.executable} -c '{KILLED}' {disk}/run; code=$?; ls -A {disk}/run/checkpoints; "
        "exit $code"
    )
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=120
    )
    if ended.returncode == 77 or "unshare failed" in ended.stderr:
        pytest.skip("no mount namespace here")
    assert ended.returncode != 0
    assert "No space left" in ended.stderr or "ENOSPC" in ended.stderr
    names = ended.stdout.split()
    assert names
    assert not [name for name in names if name.startswith(".")]


def test_time_is_kept_apart_from_numbers(toy_run, tmp_path):
    """Two runs of one configuration differ in their speed and dates only."""
    config = toy_run("mor", steps=8)
    a, b = (train(config, tmp_path / name) for name in "ab")
    same = {"throughput": Throughput(), "finished": None}
    assert replace(a, **same) == replace(b, **same)


def test_validation_is_over_held_out_rows_and_repeats(toy_run):
    config = toy_run("vanilla", steps=8)
    trainer: Trainer = _trainer(config)
    rows = [[a.tobytes() for a, _ in trainer.batches.validation(512)] for _ in range(2)]
    assert rows[0] == rows[1]


OPTIONS = [
    {"router": {"capacity_warmup_steps": 5}},
    {"router": {"network": "random"}},
    {"kv": "hybrid"},
    {"document_mask": True},
    {"relaxation": {"type": "lora", "rank": 4}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_of_the_model_train_and_resume(options, toy_run, tmp_path):
    """What needs the step or the separator gets it, and a resumed run still has the same bits."""
    config = toy_run("mor", steps=12)
    inner = {name: getattr(config.model, name) for name in options}
    for name, value in options.items():
        inner[name] = replace(inner[name], **value) if isinstance(value, dict) else value
    config = replace(config, model=replace(config.model, **inner))
    whole = train(config, tmp_path / "whole")
    calls = iter(range(1000))
    with pytest.raises(Stopped):
        train(config, tmp_path / "cut", should_stop=lambda: next(calls) == 3)
    assert train(config, tmp_path / "cut").loss == whole.loss
    assert whole.loss["val_nll_causal"] < math.log(256) + 0.05


def test_speed_switches_reach_the_model_and_change_nothing(toy_run, tmp_path):
    config = toy_run("mor", steps=15)
    switches = replace(config.runtime, loss_chunk=48, recompute="recursion")
    a = train(config, tmp_path / "a")
    b = train(replace(config, runtime=switches), tmp_path / "b")
    assert b.loss["val_nll_causal"] == pytest.approx(a.loss["val_nll_causal"], rel=1e-6)
    trainer = _trainer(replace(config, runtime=switches))
    assert (trainer.model.speed.loss_chunk, trainer.model.speed.recompute) == (48, "recursion")
