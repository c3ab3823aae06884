"""The optimizers by name: what planning knows of each. No torch.

A new one is a row of `OPTIMIZERS` and a function with torch that builds it (docs/extending.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from mor.config import Config, ConfigError, TrainConfig
from mor.flops import Params
from mor.model.lookup import lookup, positive

MUON_SETTINGS = ("muon_lr", "muon_momentum")


@dataclass(frozen=True)
class OptimizerSpec:
    """One value of `train.optimizer`."""

    module: str  # import path of what builds it
    inactive: tuple[str, ...]  # settings below `train.` that it does not read
    matrix_bytes: int  # of state for each weight of the layers' matrices
    other_bytes: int  # of state for each other weight
    shards: bool = True  # steps on a part of a matrix, so that FSDP may divide it

    def state_bytes(self, params: Params) -> int:
        """Bytes of optimizer state of a model."""
        matrices = params.attention + params.mlp
        return self.matrix_bytes * matrices + self.other_bytes * (params.total - matrices)


OPTIMIZERS = {
    "adamw": OptimizerSpec("mor.optim.adamw:adamw", MUON_SETTINGS, 8, 8),
    "muon": OptimizerSpec("mor.optim.muon:muon", (), 4, 8, shards=False),
}


def optimizer_of(train: TrainConfig) -> OptimizerSpec:
    """The optimizer of a run. Raises ConfigError for an unknown name."""
    return lookup("train.optimizer", train.optimizer, OPTIMIZERS)


def check_optimizer(config: Config) -> None:
    """Raise ConfigError for an optimizer that cannot train this run."""
    train, spec = config.train, optimizer_of(config.train)
    positive("train.muon_lr", train.muon_lr)
    if not 0 <= train.muon_momentum < 1:
        raise ConfigError(
            "train.muon_momentum", train.muon_momentum, "must lie in [0, 1)", "type 0.95"
        )
    if config.runtime.parallel == "fsdp" and not spec.shards:
        raise ConfigError(
            "runtime.parallel",
            config.runtime.parallel,
            f"train.optimizer={train.optimizer} needs whole matrices on each process",
            "type runtime.parallel=ddp or train.optimizer=adamw",
        )
