"""The schema of what is around a run: study, launch, cluster and where things are stored."""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from mor.config import Config, ConfigError, did_you_mean, from_dict, group_of, needed, text_of
from mor.devices import PEAK_TFLOPS
from mor.model.lookup import not_negative, positive
from sweeps import backends
from sweeps.definition import StudyConfig, study_config


@dataclass(frozen=True)
class Resources:
    """What one job asks for; null: from an estimate of the run's memory (`sweeps.resources`)."""

    nodes: int | None = None
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    mem_gb: int | str | None = None  # memory of a node, GB; none: do not ask for it
    mem_per_cpu_gb: float | None = None  # instead of it
    mem_per_gpu_gb: float | None = None  # instead of it


MEMORY = ("mem_gb", "mem_per_cpu_gb", "mem_per_gpu_gb")  # of which one is asked for
LEAST = {
    **{"nodes": 1, "gpus_per_node": 0, "cpus_per_task": 1, "mem_gb": 1, "timeout_min": 1},
    **{"time_margin": 1, "pack_min": 0, "array_parallelism": 1, "cpus": 1},
    **{"mem_per_cpu_gb": 0.001, "mem_per_gpu_gb": 0.001},
}


@dataclass(frozen=True)
class DataJobs:
    """The jobs that prepare corpora."""

    partition: str | None = None  # null: launch.slurm.partition
    cpus: int = 8  # processes that tokenise
    mem_gb: int | None = None  # null: 4 GB and 2 GB for each process
    timeout_min: int | None = None  # null: from the tokens; a job that needs longer is requeued
    network: bool = True  # false: jobs cannot reach the hub


@dataclass(frozen=True)
class SlurmConfig(Resources):
    """How jobs are submitted; null leaves it to the plan or to the cluster's defaults."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: str | None = None  # how GPUs are asked for: <type> | gres:gpu[:<type>] | none
    timeout_min: int | None = None  # wall time, minutes; null: from the plan's cost
    time_margin: float = 1.5  # of the estimated time, in the time limit
    pack_min: float = 30.0  # minutes of short runs put together into one job
    array_parallelism: int | None = None  # elements of an array at a time; null: all
    setup: tuple[str, ...] = ()  # shell lines before the job starts
    sbatch: dict[str, Any] = field(default_factory=dict)  # any other flag of sbatch
    per_size: dict[str, Any] | None = None  # size -> Resources of its own
    data: DataJobs = field(default_factory=DataJobs)

    def for_size(self, size: str) -> Resources:
        """What is set for a size: its own, else what is set for all. Raises ConfigError."""
        own = (self.per_size or {}).get(size) or {}
        if not isinstance(own, dict):
            raise ConfigError(
                f"launch.slurm.per_size.{size}", own, "expected a mapping", "set mem_gb: ... in it"
            )
        general = {f.name: getattr(self, f.name) for f in dataclasses.fields(Resources)}
        if any(own.get(name) is not None for name in MEMORY):
            general = {name: v for name, v in general.items() if name not in MEMORY}
        path = f"launch.slurm.per_size.{size}."
        found = from_dict(Resources, {**general, **own}, path)
        _check_memory(found, path)
        _check_least(found, path)
        return found


@dataclass(frozen=True)
class LaunchConfig:
    """How a plan is carried out."""

    mode: str = "auto"  # plan | local | slurm | auto
    workers: int | None = None  # processes at a time here; null: CPU cores / runtime.threads
    plan_file: str | None = None  # write the plan as JSON here, too
    max_hours: float = 24.0  # refuse a plan that this machine needs longer for
    max_gpu_hours: float | None = None  # refuse to submit a plan that needs more
    force: bool = False  # launch it all the same
    calibrate: bool = False  # train each model and size for calibrate_s seconds first
    calibrate_s: float = 60.0
    forecast: bool = False  # write down what the new budgets will say, before they run
    slurm: SlurmConfig = field(default_factory=SlurmConfig)


@dataclass(frozen=True)
class ClusterConfig:
    """The device that a plan is priced on."""

    gpu: str = "h100"
    mfu: float = 0.4  # assumed until the ledger has a measured one
    gpu_memory_gb: float | None = None  # of one GPU; null: by its kind
    node_gpus: int | None = None  # GPUs of one node; null: as Slurm says
    node_cpus: int | None = None  # CPU cores of one node; null: as Slurm says


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
    groups = {name: group_of(name, needed(values, name)) for name in ("launch", "cluster", "study")}
    folders = {name: text_of(name, needed(values, name)) for name in ("runs_dir", "studies_dir")}
    config = SweepConfig(
        launch=from_dict(LaunchConfig, groups["launch"], "launch."),
        cluster=from_dict(ClusterConfig, groups["cluster"], "cluster."),
        study=study_config(groups["study"]),
        **{name: os.path.expanduser(folder) for name, folder in folders.items()},
    )
    modes = ("plan", *backends.names(), "auto")
    if config.launch.mode not in modes:
        raise ConfigError(
            "launch.mode", config.launch.mode, "not known", "choose one of " + ", ".join(modes)
        )
    if config.cluster.gpu not in PEAK_TFLOPS:
        raise ConfigError(
            "cluster.gpu",
            config.cluster.gpu,
            "its peak is not known",
            "choose one of " + ", ".join(PEAK_TFLOPS),
        )
    launch = config.launch
    not_negative("launch.max_hours", launch.max_hours)
    not_negative("launch.max_gpu_hours", launch.max_gpu_hours)
    positive("launch.calibrate_s", launch.calibrate_s)
    if launch.workers is not None and launch.workers < 1:
        raise ConfigError(
            "launch.workers", launch.workers, "must be above 0", "leave it out for all cores"
        )
    for name in ("gpu_memory_gb", "node_gpus", "node_cpus"):
        positive(f"cluster.{name}", getattr(config.cluster, name))
    if not 0 < config.cluster.mfu <= 1:
        raise ConfigError(
            "cluster.mfu",
            config.cluster.mfu,
            "a share of the device's peak",
            "type cluster.mfu=0.4",
        )
    _check_slurm(launch.slurm)
    return config


def refuse_unknown_sizes(slurm: SlurmConfig, known: Collection[str]) -> None:
    """Raises ConfigError for resources of a size that no run has and none is called by."""
    for size, own in (slurm.per_size or {}).items():
        if size not in known:
            path = "launch.slurm.per_size."
            raise ConfigError(f"{path}{size}", own, "no such size", did_you_mean(size, known, path))


def _check_memory(asked: Resources, path: str) -> None:
    if isinstance(asked.mem_gb, str) and asked.mem_gb != "none":
        raise ConfigError(
            f"{path}mem_gb", asked.mem_gb, "expected GB, or none", "type a whole number"
        )
    given = [name for name in MEMORY if getattr(asked, name) is not None]
    if len(given) > 1:
        value = getattr(asked, given[1])
        raise ConfigError(
            f"{path}{given[1]}", value, f"{given[0]} is set, too", "leave one of them out"
        )


def _check_slurm(slurm: SlurmConfig) -> None:
    _check_memory(slurm, "launch.slurm.")
    _check_least(slurm, "launch.slurm.")
    _check_least(slurm.data, "launch.slurm.data.")
    for size in slurm.per_size or {}:
        slurm.for_size(size)
    if slurm.gpus is not None and not re.fullmatch(r"(gres:gpu(:[\w.-]+)?|[\w.-]+)", slurm.gpus):
        raise ConfigError(
            "launch.slurm.gpus",
            slurm.gpus,
            "not a way to ask for GPUs",
            "type a type such as a100, gres:gpu, gres:gpu:a100 or none; how many is "
            "launch.slurm.gpus_per_node",
        )


def _check_least(asked: Resources | DataJobs, path: str) -> None:
    for name, least in LEAST.items():
        value = getattr(asked, name, None)
        if isinstance(value, int | float) and value < least:
            raise ConfigError(f"{path}{name}", value, f"must be at least {least}", "leave it out")


def _refuse_unknown(values: dict[str, Any]) -> None:
    for key, value in values.items():
        if key not in RUN_KEYS | SWEEP_KEYS:
            raise ConfigError(key, value, "no such setting", did_you_mean(key, known_settings()))


def known_settings() -> list[str]:
    """Every setting that the command line knows, as a dotted name."""
    return [name for cls in (Config, SweepConfig) for name, _ in settings_of(cls)]


def settings_of(cls: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting below a dataclass by its dotted name, with its type."""
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        if f.metadata.get("inline"):
            continue
        hint, name = hints[f.name], f"{path}{f.name}"
        inner = next((arm for arm in arms(hint) if dataclasses.is_dataclass(arm)), None)
        if inner is None:
            yield name, hint
        else:
            yield from settings_of(inner, f"{name}.")


def arms(hint: Any) -> list[Any]:
    """The types that a hint allows, None left out."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return [hint]
    return [arm for arm in typing.get_args(hint) if arm is not type(None)]
