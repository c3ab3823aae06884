"""One graph says what is needed, ready and left, from plan to worker."""

from __future__ import annotations

import json
import pickle

import pytest

from sweeps.tasks import Task, TaskGraph, tasks_of
from tests.sweeps.store import Store


@pytest.fixture
def graph(tmp_path) -> TaskGraph:
    return Store(tmp_path, [1e8, 2e8, 4e8]).plan.graph


def ids(tasks) -> list[str]:
    return [task.task_id for task in tasks]


def test_a_task_is_plain_data(graph):
    for task in graph:
        assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
        assert pickle.loads(pickle.dumps(task)) == task
        assert task.config.budget == task.budget


def test_a_plan_file_holds_the_same_graph(tmp_path):
    store = Store(tmp_path, [1e8, 2e8])
    written = list(tasks_of(store.plan.for_workers(), store.ledger))
    assert ids(written) == ids(store.plan.graph)
    assert [t.exact_flops for t in written] == [t.exact_flops for t in store.plan.graph]
    for a, b in zip(written, store.plan.graph, strict=True):
        assert a.gpu_hours == pytest.approx(b.gpu_hours)


def test_runs_need_their_trunk_as_far_as_it_is_not_done(graph):
    segments = [task for task in graph if task.is_segment]
    runs = [task for task in graph if not task.is_segment]
    first, second, third = ids(segments)
    assert graph.before([runs[2].task_id]) == {first, second, third}
    assert graph.after([second]) == {second, third, runs[1].task_id, runs[2].task_id}
    assert ids(graph.ready(set())) == [first]
    done = {first, second, runs[0].task_id}
    assert graph.needed(done) == {third, runs[1].task_id, runs[2].task_id}
    assert ids(graph.ready(done)) == [runs[1].task_id, third]
    # a trunk whose later plateau is kept needs nothing before it
    assert graph.before([runs[1].task_id], done={second}) == {second}
    assert len(graph.chains_of({runs[0].task_id})) == len(graph)


def test_every_task_comes_after_what_it_depends_on(graph):
    backwards = TaskGraph(reversed(list(graph)))
    placed: set[str] = set()
    for task in backwards.order():
        assert placed.issuperset(task.depends_on)
        placed.add(task.task_id)
    assert len(placed) == len(graph)
