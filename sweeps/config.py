"""The schema of what is around a run: study, launch, cluster and where things are stored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from mor.config import Config, ConfigError, did_you_mean, from_dict
from mor.devices import PEAK_TFLOPS
from sweeps.definition import StudyConfig, study_config

MODES = ("plan", "local", "slurm", "auto")


@dataclass(frozen=True)
class SlurmConfig:
    """What each worker's job asks Slurm for; null leaves it to the cluster's defaults."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    timeout_min: int = 1440  # wall time, minutes
    gpus_per_node: int = 1
    cpus_per_task: int = 8
    mem_gb: int | None = None  # memory, GB


@dataclass(frozen=True)
class LaunchConfig:
    """How a plan is carried out."""

    mode: str = "auto"  # plan | local | slurm | auto
    workers: int | None = None  # processes at a time; null: CPU cores / runtime.threads
    plan_file: str | None = None  # write the plan as JSON here, too
    max_hours: float = 24.0  # refuse a plan that this machine needs longer for
    force: bool = False  # launch it all the same
    slurm: SlurmConfig = field(default_factory=SlurmConfig)


@dataclass(frozen=True)
class ClusterConfig:
    """The device that a plan is priced on."""

    gpu: str = "h100"
    mfu: float = 0.4  # assumed until the ledger has a measured one


@dataclass(frozen=True)
class SweepConfig:
    """Everything around a run that the command line can set."""

    launch: LaunchConfig
    cluster: ClusterConfig
    study: StudyConfig
    runs_dir: str = "runs"
    studies_dir: str = "studies"


RUN_KEYS = {f.name for f in dataclasses.fields(Config)}
SWEEP_KEYS = {f.name for f in dataclasses.fields(SweepConfig)}


def run_config(values: dict[str, Any]) -> Config:
    """The run's part of a composed configuration, types checked. Raises ConfigError."""
    _refuse_unknown(values)
    return from_dict(Config, {k: v for k, v in values.items() if k in RUN_KEYS})


def sweep_config(values: dict[str, Any]) -> SweepConfig:
    """The part around the run, checked. Raises ConfigError."""
    _refuse_unknown(values)
    config = SweepConfig(
        launch=from_dict(LaunchConfig, values["launch"], "launch."),
        cluster=from_dict(ClusterConfig, values["cluster"], "cluster."),
        study=study_config(values["study"]),
        runs_dir=str(values["runs_dir"]),
        studies_dir=str(values["studies_dir"]),
    )
    if config.launch.mode not in MODES:
        raise ConfigError(
            "launch.mode", config.launch.mode, "not known", "choose one of " + ", ".join(MODES)
        )
    if config.cluster.gpu not in PEAK_TFLOPS:
        raise ConfigError(
            "cluster.gpu",
            config.cluster.gpu,
            "its peak is not known",
            "choose one of " + ", ".join(PEAK_TFLOPS),
        )
    return config


def _refuse_unknown(values: dict[str, Any]) -> None:
    for key, value in values.items():
        if key not in RUN_KEYS | SWEEP_KEYS:
            raise ConfigError(key, value, "no such setting", did_you_mean(key, known_settings()))


def known_settings() -> list[str]:
    """Every setting that the command line knows, as a dotted name."""
    return [*_names(Config), *_names(SweepConfig)]


def _names(cls: Any, path: str = "") -> list[str]:
    import typing

    hints = typing.get_type_hints(cls)
    names = []
    for f in dataclasses.fields(cls):
        inner = hints[f.name]
        if dataclasses.is_dataclass(inner):
            names += _names(inner, f"{path}{f.name}.")
        else:
            names.append(f"{path}{f.name}")
    return names
