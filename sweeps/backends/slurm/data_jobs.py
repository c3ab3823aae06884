"""Jobs that prepare corpora: CPU jobs of their own partition, which training jobs wait for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from mor.config import ConfigError
from sweeps.backends.slurm.jobs import Array, Node, Unit
from sweeps.config import DataJobs, SlurmConfig
from sweeps.plan import Plan
from sweeps.resources import Shape

GB_PER_CPU = 2.0  # of a process that tokenises: at most 0.6 GB were measured (docs/benchmarks.md)


def data_shape(jobs: DataJobs) -> Shape:
    """What a preparation asks for: one node, no GPU."""
    mem = jobs.mem_gb or int(4 + GB_PER_CPU * jobs.cpus)
    return Shape(1, 0, jobs.cpus, mem)


def data_settings(slurm: SlurmConfig) -> SlurmConfig:
    """launch.slurm as it is for preparations."""
    return dataclasses.replace(
        slurm,
        partition=slurm.data.partition or slurm.partition,
        timeout_min=slurm.data.timeout_min,
        gpus=None,
        constraint=None if slurm.data.partition else slurm.constraint,
    )


def data_arrays(nodes: Iterable[Node], queued: Mapping[str, str]) -> list[Array]:
    """A job for each preparation that is left, in order: a larger one waits for the smaller."""
    made: dict[str, Array] = {}
    for node in sorted(nodes, key=lambda n: n.task.target):
        parent = made.get(node.after or "")
        job = queued.get(node.after or "")
        made[node.task_id] = Array([Unit((node,), job=job)], parent, job)
    return list(made.values())


def wait_for_data(arrays: Iterable[Array], data: list[Array], queued: Mapping[str, str]) -> None:
    """Let training jobs wait for the jobs that prepare what they read."""
    by_task = {name: array for array in data for name in array.units[0].tasks}
    for array in arrays:
        for name in array.units[0].data:
            array.waits.append(by_task.get(name) or queued[name])


def refuse_without_network(plan: Plan, slurm: SlurmConfig) -> None:
    """Raises ConfigError where nodes have no network and a corpus has to come from the hub."""
    for one in plan.data:
        data = one.data
        if slurm.data.network or not one.missing or data.kind != "hub" or data.mirror:
            continue
        tokens = max(p.need.train for p in plan.data if p.data.fingerprint == data.fingerprint)
        raise ConfigError(
            "launch.slurm.data.network",
            "false",
            f"{one.missing:,} tokens of {data.name} are not prepared, and jobs cannot reach the "
            "hub; nothing was submitted",
            f"type python -m mor prepare data={data.name} data.tokens={tokens:.4g} with the data.* "
            "settings of this command on a machine with network, then this command again",
        )
