"""A training step and a validation of each architecture on the card that is not there.

python tests/fake_gpu/cases.py LIBRARY OUT.json     with the stub that card.py has built
"""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fake_gpu import card

if __name__ == "__main__":
    card.load(Path(sys.argv[1]))

import numpy as np
import torch
from torch import nn

from mor.config import Config, DataConfig, ModelConfig, RuntimeConfig, TrainConfig
from mor.data.tokenizer import ByteTokenizer
from mor.evaluate.validation import final_validation, validation_on_the_way
from mor.inference import Engine, Sampling, Settings
from mor.inference.graphs import Graphs
from mor.model.transformer import Transformer
from mor.train.trainer import Trainer
from tests.fake_gpu.pretend import twice
from tests.mor.model.test_looped import looped
from tests.mor.model.test_mod import mod
from tests.mor.model.variants import ALL, SEPARATOR, SIZE, VOCAB

LENGTH, BATCH = 600, 2
SHORTEST = 140  # fewer tokens than any recursion takes of a sequence; wider than any layer


@dataclass(frozen=True)
class Meta:
    separator: int = SEPARATOR
    val_tokens: int = 1
    val_bytes: int = 1


class Corpus:
    meta = Meta()

    def tokenizer(self) -> Any:
        return ByteTokenizer()


class Batches:
    """Random tokens, the same on every device."""

    seq_len, corpus = LENGTH, Corpus()

    def __init__(self, rows: int = BATCH) -> None:
        self.rows = rows

    def has(self, step: int) -> bool:
        return False  # no reading ahead: a thread would be outside of the fake mode

    def _draw(self, seed: int) -> tuple[Any, Any]:
        rows = np.random.default_rng(seed).integers(0, VOCAB, (self.rows, LENGTH + 1))
        return rows[:, :-1].copy(), rows[:, 1:].copy()

    def batch(self, step: int, part: slice) -> tuple[Any, Any]:
        tokens, targets = self._draw(step)
        return tokens[part], targets[part]

    def validation(self, n_tokens: int, batch_size: int | None = None) -> Any:
        yield self._draw(1000)


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """`module.to(device)`, which cannot exchange the storage of a FakeTensor: new parameters."""
    memo: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                new = memo.setdefault(id(weight), nn.Parameter(weight.detach().to(device)))
                part._parameters[name] = new
        for name, state in part._buffers.items():
            part._buffers[name] = None if state is None else state.to(device)
    return module


def config_of(model: ModelConfig, precision: str, **runtime: Any) -> Config:
    return Config(
        model,
        SIZE,
        DataConfig(vocab_size=VOCAB),
        TrainConfig(batch_size=BATCH, seq_len=LENGTH, precision=precision),
        runtime=RuntimeConfig(device="cuda", micro_batch=1, compile=False, **runtime),
    )


def serves(model: ModelConfig, graphs: bool, bf16: bool = True) -> dict[str, Any]:
    """Where the host waits while the engine serves requests of every kind, and what it did."""
    counts: dict[str, Any] = {}
    asked = [
        *(Sampling(max_new=6), Sampling(max_new=6, temperature=1.0)),
        *(Sampling(max_new=6, temperature=1.0, top_p=0.9), Sampling(max_new=0, score=True)),
        Sampling(max_new=6, temperature=1.0, top_k=5, seed=1),
    ]

    def serve(device: torch.device) -> None:
        torch.manual_seed(0)
        built = Transformer(model, SIZE, VOCAB, 1, separator=SEPARATOR)
        small = Settings(
            max_batch=3, chunk=4, context=32, page=2, pool_tokens=26, bf16=bf16, graphs=graphs
        )
        engine = Engine(moved(built, device), small)  # type: ignore[arg-type]
        engine.generate([[3, SEPARATOR, 5, 1, 7, 2][: 2 + i] for i in range(5)], asked)
        done = engine.runner.counts
        counts.update(ticks=done.ticks, block_runs=done.block_runs)

    found = twice(serve, shortest=10**6)
    return {"serve": found, **counts}


def waits(model: ModelConfig, precision: str = "bf16", **runtime: Any) -> dict[str, list[str]]:
    """Where the host waits in a training step and in validations."""
    config = config_of(model, precision, **runtime)
    found = {}

    def train(device: torch.device) -> None:
        torch.manual_seed(0)
        trainer = Trainer(config, Batches(), device)  # type: ignore[arg-type]
        trainer.step(1.0)

    def validate(device: torch.device) -> None:
        torch.manual_seed(0)
        trainer = Trainer(config, Batches(), device)  # type: ignore[arg-type]
        given = (trainer.model, trainer.batches, LENGTH, trainer.precision())
        final_validation(*given)
        validation_on_the_way(*given, lambda *_: None)

    for name, work in (("train", train), ("validate", validate)):
        found[name] = twice(work, SHORTEST)
    return found


# What differs on its way through the model: routers, masks, keys and values, relaxations. Every
# variant there is runs with `python tests/fake_gpu/cases.py LIBRARY OUT all`.
CHOSEN = (
    *("vanilla", "recursive-cycle-shared", "vanilla-cycle-2", "recursive-documents"),
    *("recursive-dora", "recursive-prompt", "expert", "expert-hybrid-first-too"),
    *("expert-aux-router", "expert-warmup", "expert-shared-documents"),
    *("token", "token-shared", "token-loss-free"),
)
EVERY: dict[str, dict[str, Any]] = {
    **{name: {"model": model} for name, model in ALL.items()},
    "mod": {"model": mod(capacity=(0.5,))},
    "mod-documents": {"model": mod(capacity=(0.5,), document_mask=True)},
    "looped": {"model": looped("gate")},
    "looped-truncated": {"model": looped(loops="poisson", kept=1)},
    "vanilla-fp32": {"model": ALL["vanilla"], "precision": "fp32"},
    "token-shared-fp32": {"model": ALL["token-shared"], "precision": "fp32"},
    "expert-layer": {"model": ALL["expert"], "recompute": "layer", "loss_chunk": 256},
    "token-recursion": {"model": ALL["token"], "recompute": "recursion", "loss_chunk": 256},
    "dense": {"model": ALL["expert-shared"], "masks": "dense"},
}
SERVED = (
    *("vanilla", "recursive-documents", "recursive-dora", "expert", "expert-hybrid-first-too"),
    *("expert-aux-router", "token-shared", "mod", "looped"),
)
SERVING: dict[str, dict[str, Any]] = {
    **{f"serve-{name}": {"model": EVERY[name]["model"], "graphs": True} for name in SERVED},
    "serve-vanilla-eager": {"model": ALL["vanilla"], "graphs": False, "bf16": False},
    "serve-expert-eager": {"model": ALL["expert"], "graphs": False, "bf16": False},
}
CASES = [name for name in EVERY if name in CHOSEN or name not in ALL]


def main() -> None:
    torch.cuda.get_device_name = lambda device=None: "a card that is not there"
    torch.cuda.is_available = torch.cuda.is_bf16_supported = lambda *_, **__: True
    torch.Tensor.pin_memory = lambda tensor, device=None: tensor
    torch.cuda.get_rng_state = lambda *_: torch.zeros(16, dtype=torch.uint8)
    torch.cuda.set_rng_state = lambda *_: None
    torch.optim.Optimizer._accelerator_graph_capture_health_check = lambda _: None
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    nn.Module.to = moved  # type: ignore[method-assign, assignment]
    Graphs._captured = lambda graphs, run: run  # type: ignore[method-assign]
    results: dict[str, Any] = {}
    chosen = [name for name in sys.argv[3:] if name != "-v"] or [*CASES, *SERVING]
    chosen = [*EVERY, *SERVING] if chosen == ["all"] else chosen
    for name in chosen:
        try:
            results[name] = serves(**SERVING[name]) if name in SERVING else waits(**EVERY[name])
        except Exception as error:
            if "-v" in sys.argv:
                traceback.print_exc()
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "/mor/" in frame.filename]
            where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in ours]
            results[name] = f"{type(error).__name__}: {str(error)[:300]} ({' '.join(where[-3:])})"
    Path(sys.argv[2]).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
