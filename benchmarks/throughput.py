"""Tokens per second of the engine: MoR with 2, 3 and 4 recursions against vanilla.

python benchmarks/throughput.py --cache FOLDER [--json] [--batch 32] [--mean-length 256]
        [--rounds 30] [--slice 128] [--kv-mib MIB] [--train-steps 160] [--threads 1] [--size 135m]
        [--device cpu]

The paper's protocol (sec. 3.3, app. D), keys and values updated in the time that is measured:
prompts of one token, output lengths ~ Normal(mean, mean / 4), sampled at temperature 1, a queue
that never empties, first come, first served; at a fixed batch and at the batch that fits a stated
memory of keys and values (by default what vanilla takes at the fixed batch). Models are trained
first and kept in the folder (`benchmarks/toys.py`). Every engine is brought to its steady state,
then they take turns: in a round each makes `slice` tokens, and a speed-up is the median over the
rounds of two speeds in one round, so that what else the machine does falls on all of them.

The bound is (F0 + Nr Fr) / (F0 + mean depth Fr): forward FLOPs of a token outside of the recursions
and in one of them, the attention to a mean context included (`exact` convention), at the depth that
was measured. Vanilla is also compared with transformers' continuous batching, greedy, where
transformers is installed. On a GPU (`--device cuda`) engines work in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from benchmarks.rival_engine import against_transformers
from benchmarks.toys import HELD_OUT, MODELS, ROWS, SIZES, VOCAB, Toy, text, toy
from ledger.errors import UserError
from mor.flops import cost_model
from mor.inference import Engine, Sampling, Settings
from mor.inference.clock import Statistics
from mor.inference.request import Request

BASE = "vanilla"
REFERENCE = "vanilla at the fixed batch"  # a lane among those at the stated memory
TRAINED_LENGTH = 512


class Lane:
    """An engine whose queue never empties, with a clock that runs only while it works."""

    def __init__(self, toy: Toy, settings: Settings, mean_length: int) -> None:
        self.toy, self.settings, self.mean_length = toy, settings, mean_length
        self.engine = Engine(toy.model, settings)
        self.draw, self.text = random.Random(0), text()[-HELD_OUT:]
        self.wall = self.processor = 0.0
        self.began: dict[int, float] = {}
        self.newest: dict[int, float] = {}
        self.gaps: list[float] = []  # seconds between two tokens of a request
        self.durations: list[float] = []  # of whole requests, from the first token
        self.kv_bytes: list[int] = []
        for i in range(settings.max_batch):  # of all ages, as in the steady state
            self.submit((i + 0.5) / settings.max_batch)

    def submit(self, age: float = 0.0) -> None:
        """A request of which this share is done: so much of its text is held-out text."""
        drawn = round(self.draw.gauss(self.mean_length, self.mean_length / 4))
        length = min(max(2, drawn), self.settings.context)
        prompt = self.excerpt(max(1, int(age * length)))
        sampling = Sampling(
            max_new=length - len(prompt), temperature=1.0, seed=self.engine.submitted
        )
        self.engine.submit(prompt, sampling)

    def excerpt(self, n: int) -> list[int]:
        start = self.draw.randrange(len(self.text) - n)
        return self.text[start : start + n].tolist()

    def run(self, tokens: int) -> tuple[float, float]:
        """Tokens per second of wall time and of processor time, over `tokens` of them or more."""
        wall, processor, made = self.wall, self.processor, 0
        while made < tokens:
            while len(self.engine.scheduler.waiting) < self.settings.max_batch:
                self.submit()
            processor_began, began = time.process_time(), time.perf_counter()
            events = self.engine.step()
            self.wall += time.perf_counter() - began
            self.processor += time.process_time() - processor_began
            for event in events:
                made += event.token is not None
                self.note(event.request, event.reason is not None)
            self.kv_bytes.append(sum(pool.bytes for pool in self.engine.pools))
        return made / (self.wall - wall), made / (self.processor - processor)

    def note(self, number: int, ended: bool) -> None:
        if number in self.newest:
            self.gaps.append(self.wall - self.newest[number])
        self.newest[number] = self.wall
        self.began.setdefault(number, self.wall)
        if ended:
            self.durations.append(self.wall - self.began.pop(number))
            del self.newest[number]
            self.engine.forget(number)

    def forget_warm_up(self) -> None:
        self.gaps, self.durations, self.kv_bytes = [], [], []
        self.before = self.engine.statistics()
        self.counted = self.engine.runner.counts.tokens, self.engine.runner.counts.depth

    def mean_context(self) -> float:
        """Tokens that a token in work sees, itself included."""
        running: list[Request] = self.engine.scheduler.running
        return statistics.mean(request.done + 1 for request in running)

    def mean_depth(self) -> float:
        counts = self.engine.runner.counts
        return (counts.depth - self.counted[1]) / (counts.tokens - self.counted[0])

    def report(self, rates: list[float]) -> dict[str, Any]:
        now, before = self.engine.statistics(), self.before
        return {
            "batch": self.settings.max_batch,
            "tokens_per_s": round(statistics.median(rates), 1),
            "token_ms": percentiles(self.gaps, 1e3),
            "request_s": percentiles(self.durations, 1.0),
            "kv_mib": round(statistics.mean(self.kv_bytes) / 2**20, 1),
            "peak_kv_mib": round(max(self.kv_bytes) / 2**20, 1),
            "preemptions": now.preemptions - before.preemptions,
            "time": shares(now, before),
        }


def percentiles(values: list[float], unit: float) -> dict[str, float]:
    if not values:
        return {}
    found = np.percentile(np.asarray(values) * unit, (50, 95, 99))
    return {f"p{p}": round(float(v), 3) for p, v in zip((50, 95, 99), found, strict=True)}


def shares(now: Statistics, before: Statistics) -> dict[str, float]:
    """Parts of the engine's time."""
    seconds = {k: v - before.seconds.get(k, 0.0) for k, v in now.seconds.items()}
    return {name: round(value / sum(seconds.values()), 4) for name, value in seconds.items()}


def bound(toy: Toy, mean_depth: float, context: float) -> float:
    """(F0 + Nr Fr) / (F0 + mean depth Fr), of the forward pass."""
    model = toy.model
    cost = cost_model(model.model, model.size, VOCAB, "exact")
    outside = cost.fixed + cost.fixed_pair * context
    recursion = cost.per_token[0] + cost.per_pair[0] * context
    return (outside + model.n_blocks * recursion) / (outside + mean_depth * recursion)


def lanes_at(
    toys: dict[str, Toy], settings: dict[str, Settings], options: argparse.Namespace
) -> dict[str, Lane]:
    """Engines in their steady state."""
    of = {**toys, REFERENCE: toys[BASE]}
    lanes = {n: Lane(of[n], one, options.mean_length) for n, one in settings.items()}
    for name, lane in lanes.items():
        say(f"warming up {name}, batch {lane.settings.max_batch}")
        lane.run(lane.settings.max_batch * options.mean_length // 4)
        lane.forget_warm_up()
    return lanes


Rates = dict[str, list[tuple[float, float]]]


def take_turns(lanes: dict[str, Lane], options: argparse.Namespace) -> Rates:
    rates: Rates = {name: [] for name in lanes}
    for i in range(options.rounds):
        say(f"round {i + 1} of {options.rounds}")
        for name in lanes if i % 2 else reversed(lanes):
            rates[name].append(lanes[name].run(options.slice))
    return rates


def speedup(rates: Rates, name: str, which: int, base: str = BASE) -> float:
    pairs = zip(rates[name], rates[base], strict=True)
    return statistics.median(a[which] / b[which] for a, b in pairs)


def compare(lanes: dict[str, Lane], rates: Rates) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, lane in lanes.items():
        found[name] = lane.report([rate for rate, _ in rates[name]])
        if name != BASE:
            depth = lane.mean_depth()
            limit = bound(lane.toy, depth, lanes[BASE].mean_context())
            gain = speedup(rates, name, 0)
            found[name] = {
                "speedup": round(gain, 3),
                "processor_speedup": round(speedup(rates, name, 1), 3),
                "bound": round(limit, 3),
                "of_bound": round(gain / limit, 3),
                "mean_depth": round(depth, 3),
                **found[name],
            }
    return found


def fitting(
    found: dict[str, Any], memory: float, options: argparse.Namespace
) -> dict[str, Settings]:
    """Settings under which each model has as many requests as `memory` MiB hold."""
    settings = {}
    for name, one in found.items():
        batch = max(1, int(options.batch * memory / one["peak_kv_mib"]))
        settings[name] = Settings(
            max_batch=batch,
            context=2 * options.mean_length,
            kv_bytes=round(memory * 2**20),
            mean_depth=one.get("mean_depth"),
            bf16=on_gpu(options),
        )
    return settings


# -- all of it ------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    toys = {}
    for name in MODELS:
        say(f"{name}: from {options.cache}, or trained first")
        toys[name] = toy(
            name, options.size, options.train_steps, TRAINED_LENGTH, options.cache, options.device
        )
    common = Settings(
        max_batch=options.batch, context=2 * options.mean_length, bf16=on_gpu(options)
    )
    lanes = lanes_at(toys, dict.fromkeys(MODELS, common), options)
    found = compare(lanes, take_turns(lanes, options))
    memory = options.kv_mib or found[BASE]["peak_kv_mib"]
    settings = fitting(found, memory, options)
    del lanes
    lanes = lanes_at(toys, {**settings, REFERENCE: common}, options)
    rates = take_turns(lanes, options)
    at_memory = compare({name: lanes[name] for name in MODELS}, rates)
    speed, points = found[BASE]["tokens_per_s"], []
    for name, one in found.items():
        one["nll"] = round(toys[name].nll, 4)
        one["train_s"] = round(toys[name].train_s)
        one["at_memory"] = at_memory[name]
        gains = {
            f"{options.batch}": one.get("speedup", 1.0),
            f"what fits {memory:.0f} MiB": speedup(rates, name, 0, REFERENCE),
        }
        for batch, gain in gains.items():  # of speeds in one round, so that all can be compared
            points.append(
                {"model": name, "batch": batch, "tokens_per_s": speed * gain, "nll": one["nll"]}
            )
    found["vs_transformers"] = against_transformers(toys[BASE], options)
    found["points"] = points
    found["setting"] = {
        **{
            name: getattr(options, name)
            for name in ("size", "batch", "mean_length", "rounds", "slice", "threads", "device")
        },
        "kv_mib": memory,
        "trained_on": options.train_steps * ROWS * TRAINED_LENGTH,
        "load": [round(x, 1) for x in os.getloadavg()],
        "torch": torch.__version__,
    }
    return found


def on_gpu(options: argparse.Namespace) -> bool:
    return str(options.device).startswith("cuda")


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number above 0")
    return int(text)


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def arguments(typed: list[str] | None = None) -> argparse.Namespace:
    """What was typed; ends with a sentence where it cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder of the trained models")
    parser.add_argument("--json", action="store_true", help="on one line")
    parser.add_argument("--size", choices=SIZES, default="135m")
    parser.add_argument("--batch", type=positive, default=32, help="requests in work at once")
    parser.add_argument("--mean-length", type=positive, default=256, help="new tokens of a request")
    parser.add_argument("--rounds", type=positive, default=30)
    parser.add_argument("--slice", type=positive, default=128, help="tokens of an engine's turn")
    parser.add_argument("--kv-mib", type=float, help="memory of keys and values")
    parser.add_argument("--pairs", type=int, default=3, help="turns against transformers; 0: none")
    parser.add_argument("--train-steps", type=positive, default=160)
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args(typed)
    if on_gpu(options) and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU on this machine; leave it out")
    try:
        options.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(
            f"--cache {options.cache}: {error.strerror}; name a folder that can be written"
        )
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    try:
        found = measure(options)
    except UserError as error:  # too little memory for a sequence
        sys.exit(f"throughput.py: error: {error}")
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
