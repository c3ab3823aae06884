"""Time and memory of a training step (forward and backward) at the 135M shape, against vanilla.

python benchmarks/train_step.py [--json] [--batch 1] [--seq-len 512] [--repeats 5] [--threads 1]
                                [--eager-only] [--device cpu|cuda] [--bf16]

Beside each time ratio stands the ratio of `exact` FLOPs: what the step would take if time were
arithmetic alone. Models take turns within a repeat, and a ratio is the median over the repeats of
the two times in one repeat, so that what else the machine does falls on all of them. Needs torch
and NumPy; the comparison with transformers is left out, and said so, where it is not installed.
Peak memory is that of a process of its own, weights and gradients included (CPU: what is resident
above what was before the model).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from mor.config import ModelConfig, RouterConfig, SizeConfig
from mor.flops import cost_model, planned_routing
from mor.model.exchange import llama_config, llama_name
from mor.model.transformer import Transformer

SIZE = SizeConfig("135m", n_layers=30, d_model=576, n_heads=9, n_kv_heads=3, d_head=64, d_ff=1536)
VOCAB = 49152
EXPERT = RouterConfig("expert")
BASE = "vanilla"  # what the others are measured against
MODELS = {
    "vanilla": ModelConfig("vanilla"),
    "recursive3": ModelConfig("recursive", "recursive", 3),
    "mor2": ModelConfig("mor", "mor", 2, router=EXPERT),
    "mor3": ModelConfig("mor", "mor", 3, router=EXPERT),
}
THEIRS = "transformers"
Step = Callable[[], float]


class Bench:
    """Models, one batch, and how a step is taken and timed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, torch.device(options.device)
        generator = torch.Generator().manual_seed(0)
        rows = torch.randint(VOCAB, (options.batch, options.seq_len + 1), generator=generator)
        self.tokens = rows[:, :-1].contiguous().to(self.device)
        self.targets = rows[:, 1:].contiguous().to(self.device)

    def ours(self, name: str) -> tuple[Transformer, Step]:
        model = Transformer(MODELS[name], SIZE, VOCAB).to(self.device)

        def step() -> float:
            with self.precision():
                loss = model(self.tokens, self.targets, keep_logits=False).total_loss
            loss.backward()
            return self.finish(model, loss)

        return model, step

    def theirs(self) -> tuple[Any, Step] | None:
        """Llama of transformers with our vanilla weights, SDPA, its own loss."""
        try:
            import transformers
        except ImportError:
            return None
        mine, _ = self.ours("vanilla")
        config = transformers.LlamaConfig(
            **{k: v for k, v in llama_config(mine).items() if k != "torch_dtype"}
        )
        config._attn_implementation = "sdpa"
        model = transformers.LlamaForCausalLM(config).to(self.device)
        weights = {llama_name(name): weight for name, weight in mine.state_dict().items()}
        model.load_state_dict(weights, strict=False)
        model.tie_weights()

        def step() -> float:
            with self.precision():
                out = model(
                    self.tokens, shift_labels=self.targets, labels=self.targets, use_cache=False
                )
            out.loss.backward()
            return self.finish(model, out.loss)

        return model, step

    def precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16)

    def finish(self, model: torch.nn.Module, loss: torch.Tensor) -> float:
        value = loss.item()  # waits for the device
        model.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return value

    def times(self, steps: dict[str, Step]) -> dict[str, list[float]]:
        """Seconds of each model's step in each repeat, after one step to warm up."""
        for step in steps.values():
            step()
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(self.options.repeats):
            for name, step in steps.items():
                began = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - began)
        return seconds


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> float:
    pairs = zip(seconds[name], seconds[base], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


def flop_ratio(name: str, options: argparse.Namespace) -> float:
    flops = []
    for model in (MODELS[name], MODELS["vanilla"]):
        cost = cost_model(model, SIZE, VOCAB, "exact")
        flops.append(cost.flops(planned_routing(model, SIZE, options.seq_len), options.seq_len))
    return round(flops[0] / flops[1], 3)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(options)
    built = {name: bench.ours(name) for name in MODELS}
    steps = {name: step for name, (_, step) in built.items()}
    theirs = bench.theirs()
    if theirs:
        steps[THEIRS] = theirs[1]
        difference = abs(steps["vanilla"]() - theirs[1]())
        assert difference < (0.05 if options.bf16 else 1e-3), f"losses differ by {difference}"
    eager, compiled = bench.times(steps), None
    if not options.eager_only:
        for model, _ in [*built.values(), *([theirs] if theirs else [])]:
            layers = model.layers if isinstance(model, Transformer) else model.model.layers
            for layer in layers:
                layer.compile()
        compiled = bench.times(steps)
    return report(options, eager, compiled)


def report(
    options: argparse.Namespace,
    eager: dict[str, list[float]],
    compiled: dict[str, list[float]] | None,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in MODELS:
        if name == BASE:
            continue
        found[name] = {
            "time_ratio": ratio(eager, name, "vanilla"),
            "flop_ratio": flop_ratio(name, options),
        }
        if compiled:
            found[name]["compiled_time_ratio"] = ratio(compiled, name, "vanilla")
    if THEIRS in eager:
        found["vs_transformers"] = {"time_ratio": ratio(eager, "vanilla", THEIRS)}
        if compiled:
            both = ratio(compiled, "vanilla", THEIRS)
            found["vs_transformers"]["compiled_time_ratio"] = both
    else:
        found["vs_transformers"] = {"left_out": "transformers is not installed"}
    found["seconds"] = {name: round(statistics.median(s), 3) for name, s in eager.items()}
    if compiled:
        found["compiled_seconds"] = {n: round(statistics.median(s), 3) for n, s in compiled.items()}
    found["setting"] = {
        **{name: getattr(options, name) for name in ("batch", "seq_len", "threads", "repeats")},
        "precision": "bf16" if options.bf16 else "fp32",
        "device": options.device,
        "torch": torch.__version__,
    }
    return found


# -- memory, each model in a process of its own ------------------------------------------------


def peak(options: argparse.Namespace) -> float:
    """Bytes at the peak of two steps, weights and gradients included."""
    bench = Bench(options)
    before = resident("VmRSS")
    _, step = bench.ours(options.memory_of)
    step()
    step()
    if options.device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """Bytes of this process now (VmRSS) or at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def memory(arguments: list[str]) -> dict[str, float]:
    peaks = {}
    for name in MODELS:
        command = [sys.executable, __file__, *arguments, "--memory-of", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[name] = float(done.stdout)
    return {
        **{f"{name}_over_vanilla": round(peaks[name] / peaks["vanilla"], 3) for name in MODELS},
        **{f"{name}_mib": round(value / 2**20) for name, value in peaks.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--eager-only", action="store_true")
    parser.add_argument("--memory-of", choices=MODELS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(peak(options))
        return
    in_memory = memory([a for a in sys.argv[1:] if a != "--json"])
    found = measure(options) | {"memory": in_memory}
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
