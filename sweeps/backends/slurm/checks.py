"""What a cluster cannot do, said before anything is submitted: one sentence each."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace

from ledger.errors import UserError
from ledger.plan_file import hours_unit
from ledger.result import FINISHED
from ledger.store import Ledger
from mor.config import Config, ConfigError
from mor.flops import run_cost
from mor.optim.spec import optimizer_of
from sweeps.backends.slurm.cluster import Cluster, Partition
from sweeps.backends.slurm.jobs import Node
from sweeps.config import MEMORY, ClusterConfig, SlurmConfig, SweepConfig
from sweeps.plan import Plan
from sweeps.resources import Shape

WEIGHT_BYTES = 4  # of each parameter in a checkpoint, beside the optimizer's state


def partition_of(slurm: SlurmConfig, cluster: Cluster) -> Partition:
    """The partition that jobs go to; of several, the most that all of them allow.

    Raises ConfigError for a name that Slurm does not know, or without one where it has no default.
    """
    known = {partition.name: partition for partition in cluster.partitions}
    if slurm.partition is None:
        found = cluster.default()
        if found is None:
            raise ConfigError(
                "launch.slurm.partition",
                "null",
                "this cluster has no default partition",
                "choose one of " + ", ".join(known),
            )
        return found
    chosen = []
    for name in slurm.partition.split(","):
        if name not in known:
            raise ConfigError(
                "launch.slurm.partition",
                name,
                "no such partition is up",
                "choose one of " + ", ".join(known),
            )
        chosen.append(known[name])
    limits = [p.limit_min for p in chosen if p.limit_min is not None]
    return replace(
        chosen[0],
        name=slurm.partition,
        limit_min=min(limits, default=None),
        nodes=min(p.nodes for p in chosen),
        cpus=min(p.cpus for p in chosen),
        mem_mb=min(p.mem_mb for p in chosen),
        gpus=min(p.gpus for p in chosen),
    )


def with_node(pricing: ClusterConfig, partition: Partition) -> ClusterConfig:
    """The profile, with what a node has as the partition says where the profile does not."""
    return replace(
        pricing,
        node_gpus=pricing.node_gpus or partition.gpus or None,
        node_cpus=pricing.node_cpus or partition.cpus,
    )


def refuse_too_large(shapes: Iterable[Shape], slurm: SlurmConfig, partition: Partition) -> None:
    """Raises ConfigError where no node is large enough, or the time limit is above the
    partition's."""
    for shape in shapes:
        given = (name for name in MEMORY if getattr(shape, name) is not None)
        gpus = 0 if slurm.gpus == "none" else shape.gpus_per_node
        asked = {
            "gpus_per_node": (gpus, partition.gpus, "GPUs"),
            "cpus_per_task": (shape.cpus_per_task * shape.tasks_per_node, partition.cpus, "CPUs"),
            next(given, "mem_gb"): (shape.node_gb, partition.mem_mb / 1000, "GB of memory"),
            "nodes": (shape.nodes, partition.nodes, "nodes"),
        }
        for name, (wanted, there, unit) in asked.items():
            if wanted > there:
                where = f"partition {partition.name} has" + (
                    "" if name == "nodes" else " no node with more than"
                )
                instead = f"set launch.slurm.{name}=<number>"
                if name == "gpus_per_node" and not partition.gpus:
                    where, unit = f"no node of partition {partition.name} has", "any"
                    instead = (
                        "choose another launch.slurm.partition, or train on CPUs with "
                        "launch.slurm.gpus_per_node=0"
                    )
                    raise ConfigError(f"launch.slurm.{name}", wanted, f"{where} {unit}", instead)
                total = f" (of all {shape.tasks_per_node} tasks)" if name == "cpus_per_task" else ""
                raise ConfigError(
                    f"launch.slurm.{name}",
                    f"{wanted:g}{total}",
                    f"{where} {there:g} {unit}",
                    instead,
                )
    limit = partition.limit_min
    if slurm.timeout_min and limit and slurm.timeout_min > limit:
        raise ConfigError(
            "launch.slurm.timeout_min",
            slurm.timeout_min,
            f"partition {partition.name} ends jobs after {limit} minutes",
            f"set it to {limit} or less, or leave it out: runs that are longer go on in the same "
            "job after a requeue",
        )


def gpu_hours(nodes: Iterable[Node]) -> float:
    """Estimated hours of what is submitted, times the GPUs of each job, or its threads."""
    return sum(node.seconds * node.devices for node in nodes) / 3600


def refuse_too_expensive(nodes: list[Node], plan: Plan, study: SweepConfig) -> None:
    """Raises ConfigError where what is to be submitted needs more than `launch.max_gpu_hours`.

    Nothing is submitted then: the runs up to the cap would be curves without their right ends.
    """
    cap, needed = study.launch.max_gpu_hours, gpu_hours(nodes)
    if cap is not None and needed > cap:
        unit = hours_unit(plan.gpu)
        raise ConfigError(
            "launch.max_gpu_hours",
            f"{cap:g}",
            f"this plan needs about {needed:,.3g} {unit}",
            f"type launch.max_gpu_hours={_above(needed)}, or fewer budgets or sizes",
        )


def _above(value: float) -> str:
    return f"{value * 1.01:.3g}"


def refuse_full(plan: Plan, ledger: Ledger, study: SweepConfig) -> None:
    """Raises UserError where the run store has no room for the checkpoints of what is left."""
    configs = [run.config for run in plan.runs if run.status not in FINISHED]
    configs += [segment.config for segment in plan.segments if not segment.done]
    kept = sum(checkpoint_bytes(config) for config in configs)
    free = shutil.disk_usage(ledger.runs_dir).free
    if kept > free and not study.launch.force:
        raise UserError(
            f"runs_dir={ledger.runs_dir}: {free / 1e9:,.1f} GB are free and the checkpoints of "
            f"this plan need about {kept / 1e9:,.1f} GB; choose another with runs_dir=<folder>, "
            "or launch.force=true to submit all the same"
        )


def checkpoint_bytes(config: Config) -> int:
    """Bytes of one checkpoint: weights in fp32 and the optimizer's state."""
    params = run_cost(config).params
    return WEIGHT_BYTES * params.total + optimizer_of(config.train).state_bytes(params)
