"""How tasks become jobs: what is packed, what waits for what. No Slurm."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.folder import RunFolder
from ledger.store import Ledger
from sweeps.backends.slurm.checks import gpu_hours
from sweeps.backends.slurm.jobs import START_S, TASK_S, Array, Node, arrays_of, nodes_left
from sweeps.config import ClusterConfig
from sweeps.plan import build_plan
from sweeps.resources import Shape
from sweeps.tasks import Kind, Task
from tests.sweeps.store import Store

SMALL_CPU = Shape(1, 0, 8, 10)
SMALL, LARGE = Shape(1, 1, 8, 10), Shape(1, 2, 8, 40)


def trunk(name: str, seconds: list[float], shape: Shape = SMALL, cooldowns: int = 1) -> list[Node]:
    """A trunk cut at each budget, with cool-downs of a fifth of each stretch."""

    def node(task_id: str, kind: Kind, k: int, after: str | None, seconds: float) -> Node:
        needs = (after,) if after else ()
        values = {"budget": float(k)}
        task = Task(task_id, kind, RunFolder(Path(name)), needs, values, 1.0, 1.0, 1.0)
        return Node(task, after, seconds, shape)

    nodes, before = [], None
    for k, s in enumerate(seconds, 1):
        segment = f"{name}@{k}"
        nodes.append(node(segment, Kind.SEGMENT, k, before, s))
        nodes += [node(f"{name}-{k}-{c}", Kind.RUN, k, segment, s / 5) for c in range(cooldowns)]
        before = segment
    return nodes


def submitted(arrays: list[Array]) -> list[Array]:
    """The arrays with ids, as if Slurm had given them."""
    for number, array in enumerate(arrays):
        array.array_id = str(100 + number)
    return arrays


def job_of(arrays: list[Array]) -> dict[str, str]:
    return {
        task: array.job_id(i)
        for array in arrays
        for i, unit in enumerate(array.units)
        for task in unit.tasks
    }


def waits_for(arrays: list[Array]) -> dict[str, str | None]:
    """For each task, the job that its job waits for, by Slurm's rule for its dependency."""
    found: dict[str, str | None] = {}
    for array in arrays:
        kind, _, target = (array.dependency() or "none:").partition(":")
        for i, unit in enumerate(array.units):
            job = {"none": None, "afterok": target, "aftercorr": f"{target}_{i}"}[kind]
            found.update(dict.fromkeys(unit.tasks, job))
    return found


def chains(longest: int) -> st.SearchStrategy[list[tuple[list[float], Shape, int]]]:
    """Trunks: seconds of each stretch, the shape of their jobs, cool-downs at each cut."""
    stretches = st.lists(st.sampled_from([60.0, 600.0, 6000.0]), min_size=1, max_size=3)
    one = st.tuples(stretches, st.sampled_from([SMALL, LARGE]), st.integers(1, 2))
    return st.lists(one, min_size=1, max_size=longest)


@settings(max_examples=200, deadline=None)
@given(chains(8), st.sampled_from([0.0, 900.0, 1e5]), st.integers(1, 4), st.data())
def test_whatever_the_study_each_task_runs_once_and_after_what_it_needs(
    made, pack_s, max_array_size, data
):
    nodes = [n for i, (s, shape, c) in enumerate(made) for n in trunk(f"t{i}", s, shape, c)]
    # some tasks are in the queue of an earlier launch, with everything that they need
    roots = [n for n in nodes if n.is_segment and n.after is None]
    early = set(data.draw(st.lists(st.sampled_from([n.task_id for n in roots]), unique=True)))
    queued = {name: f"9_{i}" for i, name in enumerate(sorted(early))}
    nodes = [n for n in nodes if n.task_id not in queued]
    arrays = submitted(arrays_of(nodes, queued, pack_s, max_array_size))

    tasks = [task for array in arrays for unit in array.units for task in unit.tasks]
    assert sorted(tasks) == sorted(node.task_id for node in nodes)
    assert all(len(array.units) <= max_array_size for array in arrays)
    assert all(len({n.shape for u in a.units for n in u.nodes}) == 1 for a in arrays)

    jobs, waits = job_of(arrays), waits_for(arrays)
    position = {job: i for i, job in enumerate(dict.fromkeys(jobs.values()))}
    for node in nodes:
        if node.after is None:
            continue
        job = jobs[node.task_id]
        if node.after in queued:  # waits for it, or stands behind a task that does
            assert waits[node.task_id] == queued[node.after]
        elif jobs[node.after] != job:
            assert waits[node.task_id] == jobs[node.after]
            assert position[jobs[node.after]] < position[job]  # submitted after it

    for array in arrays:
        for unit in array.units:
            if len(unit.nodes) > 1:
                assert unit.seconds <= pack_s
            # a cool-down that fails cancels nothing: no other job waits for one that holds it
            if any(not node.is_segment for node in unit.nodes):
                assert not {jobs[n] for n in unit.tasks} & set(waits.values())


def test_chains_of_one_form_share_arrays_that_wait_element_by_element():
    nodes = [n for i in range(5) for n in trunk(f"t{i}", [6000.0, 9000.0])]
    arrays = submitted(arrays_of(nodes, {}, 1800, 1001))
    assert [len(array.units) for array in arrays] == [5, 5, 5, 5]
    first, cooldowns, second, last = (array.dependency() for array in arrays)
    assert (first, cooldowns, second, last) == (None, *["aftercorr:100"] * 2, "aftercorr:102")
    assert {u.nodes[0].budget for u in arrays[1].units} == {1.0}  # the smaller budget goes first


def test_many_short_trunks_fill_one_job_and_none_is_fuller_than_asked():
    nodes = [n for i in range(10) for n in trunk(f"t{i}", [300.0])]  # 360 s each
    arrays = arrays_of(nodes, {}, 1800, 1001)
    assert [len(unit.tasks) for unit in arrays[0].units] == [10, 10]
    assert arrays[0].dependency() is None
    assert [len(u.tasks) for u in arrays_of(nodes, {}, 0, 1001)[0].units] == [1] * 10


@pytest.mark.parametrize(("threads", "nodes"), [(1, 1), (4, 1), (2, 3)])
def test_hours_on_cpus_are_those_of_cores(tmp_path, threads: int, nodes: int):
    store = Store(tmp_path, [1e12], sizes={"tiny": 128})
    runtime = replace(store.plan.runs[0].config.runtime, threads=threads)
    configs = [replace(run.config, runtime=runtime) for run in store.plan.runs]
    plan = build_plan("s", configs, store.ledger, ClusterConfig("cpu", 1e-4))
    shape = Shape(nodes, 0, 4, 10)
    left = nodes_left(plan.graph, lambda task: shape, {})
    cores = threads * nodes
    needed = plan.totals()["remaining"]["gpu_hours"]
    assert gpu_hours(left) == pytest.approx(needed + len(left) * TASK_S * cores / 3600)
    wall = sum(node.seconds - TASK_S for node in left)
    assert wall == pytest.approx(3600 * needed / cores)
    assert needed > 1


def test_a_time_limit_covers_the_longest_element():
    [array] = arrays_of(
        [n for i in range(2) for n in trunk(f"t{i}", [600.0 * (1 + i)])], {}, 900, 9
    )[:1]
    assert array.minutes(1.5) * 60 >= 1.5 * max(unit.seconds for unit in array.units)
    assert array.minutes(3.0) > array.minutes(1.5)


@pytest.mark.parametrize("there", [(), (1e8,), (2e8,), (1e8, 2e8), (1e8, 4e8)])
def test_a_trunk_that_was_begun_needs_what_the_plan_says_is_left(there, tmp_path):
    """Of its own budgets some plateaus are there, and one of a budget that is not planned now."""
    store = Store(tmp_path, [1e8, 2e8, 4e8])
    for segment in store.plan.segments:
        if segment.config.budget in there:
            store.finish_segment(segment.segment_id)
    planned = [run.config for run in store.plan.runs if run.config.budget != 1e8]
    machine = ClusterConfig("cpu", 1e-6)  # tens of hours
    plan = build_plan("s", planned, Ledger(store.ledger.runs_dir), machine)
    left = plan.totals()["remaining"]["gpu_hours"]
    nodes = nodes_left(plan.graph, lambda task: SMALL_CPU, {})
    beside = len(nodes) * TASK_S / 3600
    assert gpu_hours(nodes) - beside == pytest.approx(left)
    arrays = arrays_of(nodes, {}, 1e9, 1001)  # the whole chain as one job
    assert [array.minutes(1.5) for array in arrays] == [
        math.ceil((START_S + 1.5 * 3600 * (left + beside)) / 60)
    ]
