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

from mor.config import Config, DataConfig, ModelConfig, RuntimeConfig, TrainConfig
from mor.data.tokenizer import bytes_tokenizer
from mor.evaluate.validation import final_validation, validation_on_the_way
from mor.train.trainer import Trainer
from tests.fake_gpu.pretend import twice
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
        return bytes_tokenizer()


class Batches:
    """Random tokens, the same on every device."""

    seq_len, corpus = LENGTH, Corpus()

    def _draw(self, seed: int) -> tuple[Any, Any]:
        rows = np.random.default_rng(seed).integers(0, VOCAB, (BATCH, LENGTH + 1))
        return rows[:, :-1].copy(), rows[:, 1:].copy()

    def batch(self, step: int, part: slice) -> tuple[Any, Any]:
        tokens, targets = self._draw(step)
        return tokens[part], targets[part]

    def validation(self, n_tokens: int, batch_size: int | None = None) -> Any:
        yield self._draw(1000)


def config_of(model: ModelConfig, precision: str, **runtime: Any) -> Config:
    return Config(
        model,
        SIZE,
        DataConfig(vocab_size=VOCAB),
        TrainConfig(batch_size=BATCH, seq_len=LENGTH, precision=precision),
        runtime=RuntimeConfig(device="cuda", micro_batch=1, **runtime),
    )


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


CASES: dict[str, dict[str, Any]] = {
    **{name: {"model": model} for name, model in ALL.items()},
    **{f"{name}-fp32": {"model": ALL[name], "precision": "fp32"} for name in ("vanilla", "expert")},
    **{
        f"{name}-{way}": {"model": ALL[name], "recompute": way, "loss_chunk": 256}
        for name in ("vanilla", "expert", "token")
        for way in ("recursion", "layer")
    },
}


def main() -> None:
    results: dict[str, Any] = {}
    chosen = sys.argv[3:] or list(CASES)
    for name in chosen:
        try:
            results[name] = waits(**CASES[name])
        except Exception as error:
            where = [f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)
                     if "/mor/" in f.filename]  # fmt: skip
            results[name] = f"{type(error).__name__}: {str(error)[:300]} ({' '.join(where[-3:])})"
    Path(sys.argv[2]).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
