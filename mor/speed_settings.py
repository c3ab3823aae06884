"""The settings that decide how fast a configuration trains. No torch."""

from __future__ import annotations

from typing import Any

from mor.config import Config
from mor.identity import identity

OF_RUNTIME = (
    *("device", "threads", "parallel", "micro_batch"),
    *("loss_chunk", "masks", "recompute", "compile"),
)


def speed_settings(config: Config) -> dict[str, Any]:
    """The settings that decide how fast it trains: the model, and not its data or budget."""
    own = identity(config)
    train = {name: getattr(config.train, name) for name in ("batch_size", "seq_len", "precision")}
    runtime = {name: getattr(config.runtime, name) for name in OF_RUNTIME}
    if runtime["recompute"] == "auto":  # none, unless nothing else fits
        runtime["recompute"] = "none"
    return {
        "model": own["model"],
        "size": own["size"],
        "optimizer": config.train.optimizer,
        "train": train,
        "runtime": runtime,
        "vocab_size": config.data.vocab_size,
    }
