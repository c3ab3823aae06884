"""From the tasks of a plan to Slurm jobs: what is packed together, what waits for what.

Plain Python on plain data, without Slurm. A *chain* is a trunk with its cool-downs, or a run of its
own; a *unit* is what one array element runs. Chains of the same form become arrays of the same
length, one for each place in the form, so that element i of a cool-down array depends on element i
of its segments' array (`aftercorr`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sweeps.resources import Shape
from sweeps.tasks import Task, TaskGraph

T = TypeVar("T", "Node", "Unit")

TASK_S = 10.0  # of any task, beside its steps: model, corpus, validation
START_S = 120.0  # of any job: a node, Python, torch
SHORTEST_MIN = 10  # no time limit is shorter: estimates of seconds are poor


@dataclass(frozen=True)
class Node:
    """A task that is left to do, with what its job needs."""

    task: Task
    after: str | None  # the task that has to be done first
    seconds: float  # estimated, on the devices of its shape
    shape: Shape
    data: str | None = None  # the task that has to prepare its tokens first

    @property
    def task_id(self) -> str:
        return self.task.task_id

    @property
    def devices(self) -> int:
        """What hours count: GPUs, or threads of all processes."""
        return devices_of(self.task, self.shape)

    @property
    def chain(self) -> str:
        return self.task.chain

    @property
    def is_segment(self) -> bool:
        return self.task.is_segment

    @property
    def budget(self) -> float:
        return self.task.budget


@dataclass(frozen=True)
class Unit:
    """The tasks of one array element, in order."""

    nodes: tuple[Node, ...]
    parent: int | None = None  # the unit of the same chain that it waits for
    job: str | None = None  # or the job of an earlier launch
    stage: int = 0  # 2k: the k-th stretch of a trunk; 2k + 1: cool-downs that branch off its end

    @property
    def shape(self) -> Shape:
        return self.nodes[0].shape

    @property
    def seconds(self) -> float:
        return sum(node.seconds for node in self.nodes)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(node.task_id for node in self.nodes)

    @property
    def data(self) -> tuple[str, ...]:
        """The preparations that it waits for."""
        return tuple(sorted({node.data for node in self.nodes if node.data}))

    def form(self) -> tuple[object, ...]:
        return (self.shape, self.parent, self.job, self.stage, self.data)


@dataclass
class Array:
    """One submission: units of one shape that wait for the same place of their chains."""

    units: list[Unit]
    parent: Array | None = None  # as long as this one
    job: str | None = None  # of an earlier launch, that every unit waits for
    array_id: str | None = field(default=None, compare=False)  # once submitted
    waits: list[Array | str] = field(default_factory=list)  # for data: jobs, or ids of queued ones

    @property
    def shape(self) -> Shape:
        return self.units[0].shape

    def job_id(self, index: int) -> str:
        """Slurm's id of an element; submitit submits a single one as a plain job."""
        return f"{self.array_id}_{index}" if len(self.units) > 1 else str(self.array_id)

    def dependency(self) -> str | None:
        """Slurm's words for what its elements wait for, once that is submitted."""
        found = []
        if self.job:
            found.append(f"afterok:{self.job}")
        elif self.parent is not None:
            word = "aftercorr" if len(self.units) > 1 else "afterok"
            found.append(f"{word}:{self.parent.array_id}")
        for data in self.waits:
            found.append(f"afterok:{data if isinstance(data, str) else data.array_id}")
        return ",".join(found) or None

    def minutes(self, margin: float) -> int:
        """The time limit that its longest element needs."""
        longest = max(unit.seconds for unit in self.units)
        return max(SHORTEST_MIN, math.ceil((START_S + margin * longest) / 60))


def nodes_left(
    graph: TaskGraph, shape: Callable[[Task], Shape], queued: Mapping[str, str]
) -> list[Node]:
    """The tasks that are neither done nor `queued` (task id -> job id), and that a run needs."""
    found = [_node(task, graph, shape(task)) for task in graph.left() if task.task_id not in queued]
    return sorted(found, key=lambda n: (n.budget, n.task.rank, n.seconds, n.task_id))


def devices_of(task: Task, shape: Shape) -> int:
    processes = shape.nodes * shape.tasks_per_node
    return shape.gpus or processes * task.config.runtime.threads


def _node(task: Task, graph: TaskGraph, shape: Shape) -> Node:
    after = next((name for name in task.depends_on if not graph[name].done), None)
    seconds = TASK_S + 3600 * task.hours_left / devices_of(task, shape)
    seconds += 3600 * task.core_hours / shape.cpus_per_task
    data = task.data if task.data and not graph[task.data].done else None
    return Node(task, after, seconds, shape, data)


def arrays_of(
    nodes: Iterable[Node], queued: Mapping[str, str], pack_s: float, max_array_size: int
) -> list[Array]:
    """The submissions for some tasks, in their order: small budgets first, parents first.

    `pack_s` is how many seconds of work are put together into one element; `max_array_size` is
    Slurm's, arrays that would be longer are split.
    """
    chains: dict[str, list[Node]] = {}
    for node in nodes:
        chains.setdefault(node.chain, []).append(node)
    cut = [units_of(chain, queued, pack_s) for chain in chains.values()]
    whole = [units[0] for units in cut if _alone(units)]
    families: dict[tuple[object, ...], list[list[Unit]]] = {}
    for units in [[unit] for unit in packed(whole, pack_s)] + [u for u in cut if not _alone(u)]:
        families.setdefault(tuple(unit.form() for unit in units), []).append(units)
    arrays = []
    for family in families.values():
        for start in range(0, len(family), max(1, max_array_size)):
            arrays += _family_arrays(family[start : start + max(1, max_array_size)])
    return sorted(arrays, key=lambda a: (a.units[0].stage, a.units[0].seconds))


def _alone(units: list[Unit]) -> bool:
    """Whether a chain is one unit that waits for nothing."""
    return len(units) == 1 and units[0].job is None


def units_of(chain: list[Node], queued: Mapping[str, str], pack_s: float) -> list[Unit]:
    """How one chain is cut: whole where it is short, else stretches of its trunk, one after the
    other, and cool-downs on the stretch that they branch off.

    Only tasks that fail together share a unit: a cool-down never stands in one that more of the
    trunk waits for. An evaluation goes with its run, in one unit, where that is left to do.
    """
    segments = [node for node in chain if node.is_segment]
    runs = [node for node in chain if not node.is_segment]
    here = {node.task_id for node in runs}
    with_run = {node.task_id for node in runs if node.after in here}  # of the same shape
    jobs = {queued[n.after] for n in chain if n.after and n.after in queued}
    if len({node.shape for node in chain}) == 1 and len(jobs) <= 1:
        single = Unit(tuple(chain), job=next(iter(jobs), None))
        if len(chain) == 1 or single.seconds <= pack_s:
            return [single]
    units: list[Unit] = []
    place: dict[str, int] = {}  # of each segment, among the units
    for k, part in enumerate(_filled(segments, pack_s)):
        after = part[0].after or ""
        place.update({node.task_id: len(units) for node in part})
        units.append(Unit(tuple(part), place.get(after), queued.get(after), 2 * k))
    by_parent: dict[tuple[int | None, str | None, Shape], list[Node]] = {}
    for run in runs:
        if run.task_id in with_run:
            continue
        after = run.after or ""
        by_parent.setdefault((place.get(after), queued.get(after), run.shape), []).append(run)
    for (parent, job, _), branch in by_parent.items():
        stage = 1 if parent is None else units[parent].stage + 1
        units += [Unit(tuple(part), parent, job, stage) for part in _filled(branch, pack_s)]
    followers = [node for node in runs if node.task_id in with_run]
    return [_followed(unit, followers) for unit in units]


def _followed(unit: Unit, followers: list[Node]) -> Unit:
    """A unit with the evaluations of its runs, each after its run."""
    nodes: list[Node] = []
    for node in unit.nodes:
        nodes += [node, *(f for f in followers if f.after == node.task_id)]
    return dataclasses.replace(unit, nodes=tuple(nodes))


def packed(units: list[Unit], pack_s: float) -> list[Unit]:
    """Units that wait for nothing, put together by shape up to `pack_s` seconds each."""
    by_shape: dict[Shape, list[Unit]] = {}
    for unit in sorted(units, key=lambda u: (u.nodes[-1].budget, u.seconds)):
        by_shape.setdefault(unit.shape, []).append(unit)
    return [
        Unit(tuple(node for unit in part for node in unit.nodes))
        for same in by_shape.values()
        for part in _filled(same, pack_s)
    ]


def _filled(items: Iterable[T], pack_s: float) -> list[list[T]]:
    """Items in their order, cut where the next one would exceed `pack_s` seconds or has another
    shape."""
    parts: list[list[T]] = []
    for item in items:
        last = parts[-1] if parts else []
        full = sum(other.seconds for other in last) + item.seconds > pack_s
        if not last or full or last[0].shape != item.shape:
            parts.append([item])
        else:
            last.append(item)
    return parts


def _family_arrays(family: list[list[Unit]]) -> list[Array]:
    """Arrays of equal length, one for each place in the chains."""
    arrays: list[Array] = []
    for place, unit in enumerate(family[0]):
        parent = None if unit.parent is None else arrays[unit.parent]
        arrays.append(Array([units[place] for units in family], parent, unit.job))
    return arrays
