"""Training steps of the real trainer on a GPU: MFU, step time over the FLOP ratio, peak memory.

python benchmarks/gpu.py [--json FILE] [--table FILE] [--only NAME,...] [--batch 32] [--steps 8]
                         [--loss-chunk N] [--seconds 420]

Each configuration is a process of its own: bf16, compiled layers, AdamW, micro-batch by
measurement, bytes of Python's standard library in a vocabulary of 49,152, sequences of 2,048
tokens. MFU is `exact` FLOPs (forward and backward of every matmul, causal attention counted in
half) over the peak of the data sheet. `run` trains a small MoR from an empty folder to its result,
checkpoints and causal validation included; `train:SIZE` trains that size for 2e16 exact FLOPs and
reports its loss; `decode:SIZE` is `benchmarks/throughput.py` on the GPU. Without a GPU it says so
and does nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.train_step import EXPERT, MODELS, SIZE
from mor.config import (
    Config,
    DataConfig,
    ModelConfig,
    RouterConfig,
    RuntimeConfig,
    SizeConfig,
    TrainConfig,
)
from mor.data.batches import Batches
from mor.data.fingerprint import fingerprint
from mor.data.prepare import prepare
from mor.devices import peak_tflops
from mor.evaluate.validation import final_validation
from mor.flops import run_cost

SIZES = {
    "135m": SIZE,
    "360m": SizeConfig("360m", 32, 960, 15, 5, 64, 2560),
    "730m": SizeConfig("730m", 26, 1536, 24, 8, 64, 4096),
    "1.7b": SizeConfig("1.7b", 24, 2048, 32, 32, 64, 8192),
    "toy": SizeConfig("toy", 5, 64, 4, 2, 16, 128),
}
TOKEN = RouterConfig("token", activation="softmax", alpha=1.0, z_coeff=1e-5)
MORE_MODELS = {
    "mor3_shared": ModelConfig("mor", "mor", 3, kv="shared", router=EXPERT),
    "mor_token3": ModelConfig("mor_token", "mor", 3, router=TOKEN),
}
JOBS = (
    "run", "vanilla:360m", "mor3:360m", "mor2:360m", "vanilla:1.7b", "recursive3:360m",
    "mor3:1.7b", "vanilla:135m", "train:360m", "decode:360m", "mor_token3:360m", "mor3_shared:360m",
    "vanilla:730m",
)  # fmt: skip
TRAINED = 2e16  # exact FLOPs of `train`


def config_of(model: str, size: str, batch: int, folder: Path) -> Config:
    data = DataConfig(vocab_size=49152, cache_dir=str(folder))
    return Config(
        (MODELS | MORE_MODELS)[model],
        SIZES[size],
        replace(data, fingerprint=fingerprint(data)),
        TrainConfig(batch_size=batch, val_tokens=16384, warmup_steps=3),
        runtime=RuntimeConfig(device="cuda", compile=True, log_steps=1),
    )


def measure_steps(
    model: str, size: str, batch: int, steps: int, loss_chunk: int | None
) -> dict[str, Any]:
    """Median seconds of a step, MFU, memory and validation of one configuration."""
    from mor.train.trainer import Trainer

    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda")
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(model, size, batch, Path(folder))
        config = replace(config, runtime=replace(config.runtime, loss_chunk=loss_chunk))
        trainer = Trainer(config, Batches(prepare(config.data, False), 2048, batch, 0), device)
        began = time.perf_counter()
        for _ in range(3):
            trainer.step(0.1)
        torch.cuda.synchronize()
        warm, seconds = time.perf_counter() - began, []
        torch.cuda.reset_peak_memory_stats()
        for _ in range(steps):
            began = time.perf_counter()
            metrics = trainer.step(0.1)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        peak = torch.cuda.max_memory_allocated()
        flops = run_cost(config).step_flops["exact"]
        name = torch.cuda.get_device_name()
        median = statistics.median(seconds)
        found = {
            "device": name,
            "torch": torch.__version__,
            "step_s": round(median, 4),
            "spread": round((max(seconds) - min(seconds)) / median, 3),
            "tokens_per_s": round(batch * 2048 / median),
            "mfu": round(flops / median / (1e12 * (peak_tflops(name) or float("nan"))), 4),
            "exact_tflops": round(flops / 1e12, 2),
            "micro_batch": trainer.micro_batch.size,
            "peak_gib": round(peak / 2**30, 2),
            "first_steps_s": round(warm, 1),
            "loss": round(metrics["loss"], 4),
        }
        try:
            began = time.perf_counter()
            validation = final_validation(
                trainer.spread.whole(), trainer.batches, 16384, trainer.precision()
            )
            torch.cuda.synchronize()
            found["validation_s"] = round(time.perf_counter() - began, 2)
            found["validation"] = {k: round(v, 4) for k, v in validation.losses.items()}
        except Exception as error:
            found["validation_error"] = f"{type(error).__name__}: {error}"[:400]
        return found


def measure_run() -> dict[str, Any]:
    """A small MoR from an empty folder to its `result.json`."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of("mor3", "toy", 8, Path(folder))
        config = replace(config, train=replace(config.train, seq_len=256))
        config = replace(config, budget=60 * run_cost(config).step_flops["paper"])
        return whole_run(config, Path(folder))


def measure_training(size: str, batch: int) -> dict[str, Any]:
    """Vanilla of a size for TRAINED exact FLOPs."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of("vanilla", size, batch, Path(folder))
        config = replace(config, flops=replace(config.flops, convention="exact"), budget=TRAINED)
        return whole_run(config, Path(folder))


def whole_run(config: Config, folder: Path) -> dict[str, Any]:
    """A run from an empty folder to its `result.json`."""
    from ledger.folder import RunFolder
    from mor.train.run import Hooks, train_run

    run = RunFolder(folder / "run")
    began = time.perf_counter()
    train_run(config, run, None, Hooks())
    result = run.result()
    assert result is not None
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "status": result.status,
        "steps": result.steps,
        "tokens": result.tokens,
        "loss": result.loss,
        "mfu": result.throughput.mfu,
        "device": result.throughput.device,
    }


SERVED = ("tokens_per_s", "speedup", "bound", "of_bound", "mean_depth", "batch")


def measure_decoding(size: str, device: str = "cuda", *more: str) -> dict[str, Any]:
    """Tokens per second of the engine by the protocol of `benchmarks.throughput`: trained routers,
    a queue that never empties, vanilla against MoR with 2, 3 and 4 recursions."""
    from benchmarks.throughput import arguments, measure

    with tempfile.TemporaryDirectory() as folder:
        asked = ["--cache", folder, "--size", size, "--device", device, "--pairs", "0"]
        found = measure(arguments([*asked, "--rounds", "10", "--slice", "512", *more]))
    return {
        name: {
            **{key: row[key] for key in SERVED if key in row},
            "at_memory": {k: row["at_memory"][k] for k in SERVED if k in row["at_memory"]},
            "time": row["time"],
        }
        for name, row in found.items()
        if "tokens_per_s" in row
    }


def in_a_process(job: str, options: argparse.Namespace, limit: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--job", job]
    command += ["--batch", str(options.batch), "--steps", str(options.steps)]
    if options.loss_chunk is not None:
        command += ["--loss-chunk", str(options.loss_chunk)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not ended after {limit:.0f} s"}
    if done.returncode:
        return {"error": done.stderr.strip()[-1500:]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def compare(found: dict[str, dict[str, Any]]) -> None:
    """Add each model's ratios to the vanilla model of its size."""
    for job, row in found.items():
        base = found.get(f"vanilla:{job.partition(':')[2]}", {})
        if "step_s" in row and "step_s" in base:
            row["time_ratio"] = round(row["step_s"] / base["step_s"], 3)
            row["flop_ratio"] = round(row["exact_tflops"] / base["exact_tflops"], 3)
            row["memory_ratio"] = round(row["peak_gib"] / base["peak_gib"], 3)


COLUMNS = {
    "step_s": "step, s",
    "tokens_per_s": "tokens/s",
    "mfu": "MFU",
    "micro_batch": "micro-batch",
    "peak_gib": "peak, GiB",
    "time_ratio": "time ratio",
    "flop_ratio": "FLOP ratio",
    "memory_ratio": "memory ratio",
}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row for each configuration's steps, a line for each other job and each error."""
    lines = ["| configuration | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("| --- " * (len(COLUMNS) + 1) + "|")
    others = []
    for job, row in rows.items():
        if "step_s" in row:
            lines.append(
                f"| {job} | " + " | ".join(str(row.get(key, "")) for key in COLUMNS) + " |"
            )
        else:
            others.append(f"- {job}: {json.dumps(row)}")
    return "\n".join([*lines, "", *others]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="write the figures as Markdown")
    parser.add_argument("--only", default=",".join(JOBS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--loss-chunk", type=int, help="runtime.loss_chunk of the steps")
    parser.add_argument("--seconds", type=float, default=420, help="of all jobs together")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: torch sees no GPU on this machine")
        return
    if options.job:
        model, _, size = options.job.partition(":")
        if not size:
            found = measure_run()
        elif model == "train":
            found = measure_training(size, options.batch)
        elif model == "decode":
            found = measure_decoding(size)
        else:
            found = measure_steps(model, size, options.batch, options.steps, options.loss_chunk)
        print(json.dumps(found))
        return
    end, rows = time.monotonic() + options.seconds, {}
    for job in options.only.split(","):
        left = end - time.monotonic()
        if left < 20:
            break
        rows[job] = in_a_process(job, options, left)
        compare(rows)
        print(job, json.dumps(rows[job]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
        if options.table:
            options.table.write_text(table(rows))


if __name__ == "__main__":
    main()
