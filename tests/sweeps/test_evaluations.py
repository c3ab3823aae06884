"""`study.evaluate`: a task after each run, done where the run has scores on the very tasks."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.evaluation import Evaluation
from ledger.plan_file import PlanFile
from mor.config import Config, ConfigError, UserError
from mor.evaluate.task_sets import TaskSet, task_set
from sweeps.backends.slurm.jobs import Node, arrays_of
from sweeps.board import board
from sweeps.commands.cancel import cancel_run
from sweeps.commands.find import find_target
from sweeps.commands.retry import runs_to_retry
from sweeps.config import ClusterConfig
from sweeps.definition import study_config
from sweeps.launches import add_to_study, new_launch
from sweeps.plan import Plan, build_plan
from sweeps.ranks import Order
from sweeps.tasks import Kind, Task, TaskGraph, tasks_of
from tests.sweeps.backends.slurm.test_jobs import (
    chains,
    job_of,
    submitted,
    trunk,
    waits_for,
)
from tests.sweeps.store import Store

BUDGETS = [1e8, 2e8]


@pytest.fixture
def mine(tmp_path: Path) -> TaskSet:
    (tmp_path / "mine.jsonl").write_text('{"text": "one"}')
    return task_set(str(tmp_path / "mine.jsonl"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, BUDGETS)


def planned(store: Store, *task_sets: TaskSet) -> Plan:
    configs = [run.config for run in store.plan.runs]
    return build_plan("s", configs, store.ledger, ClusterConfig("cpu", 0.3), task_sets)


def score(store: Store, run_id: str, tasks: TaskSet) -> None:
    folder = store.ledger.folder(run_id)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write_evaluation(tasks.name, Evaluation(fingerprint=tasks.fingerprint))


def evaluations(graph: TaskGraph) -> list[Task]:
    return [task for task in graph if task.is_evaluation]


def test_a_plan_without_evaluations_is_what_it_was(store: Store, mine: TaskSet) -> None:
    without, with_them = planned(store).for_workers(), planned(store, mine).for_workers()
    assert "evaluations" not in without.to_dict()
    assert "evaluations" not in (without.totals or {})
    assert [run.to_dict() for run in with_them.runs] == [run.to_dict() for run in without.runs]
    assert without.segments == with_them.segments
    assert PlanFile.from_dict(json.loads(json.dumps(with_them.to_dict()))).evaluations == (
        with_them.evaluations
    )


def test_an_evaluation_comes_after_its_run_and_needs_its_trunk(store: Store, mine: TaskSet) -> None:
    plan = planned(store, mine, task_set("corpus"))
    graph = plan.graph
    found = evaluations(graph)
    assert len(found) == 2 * len(BUDGETS)
    for task in found:
        run = graph[task.depends_on[0]]
        assert run.is_run
        assert task.folder == run.folder
        assert task.chain == run.chain
        assert graph.before([task.task_id]) == {run.task_id, *graph.before([run.task_id])}
        assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert {task.task_set for task in found} == {"mine", "corpus"}
    written = tasks_of(plan.for_workers(), store.ledger)
    assert [t.to_dict() for t in evaluations(written)] == [t.to_dict() for t in found]


def test_it_is_done_with_scores_on_the_very_tasks(
    store: Store, mine: TaskSet, tmp_path: Path
) -> None:
    first, second = store.runs()
    for run_id in (first, second):
        store.result(run_id)
    score(store, first, mine)
    plan = planned(store, mine)
    assert [task.folder.run_id for task in plan.graph.left()] == [second]
    assert [task.finished(store.ledger) for task in evaluations(plan.graph)] == [True, False]
    assert plan.totals()["evaluations"]["remaining"] == 1
    score(store, second, mine)
    assert planned(store, mine).graph.left() == []
    (tmp_path / "mine.jsonl").write_text('{"text": "two"}')
    changed = task_set(mine.given)
    assert len(planned(store, changed).graph.left()) == 2


def test_a_run_that_diverged_is_not_evaluated(store: Store, mine: TaskSet) -> None:
    plan = planned(store, mine)
    first = store.runs()[0]
    store.result(first, "diverged")
    [task] = [t for t in evaluations(plan.graph) if t.folder.run_id == first]
    assert task.failed("any launch")
    assert first not in {t.folder.run_id for t in evaluations(planned(store, mine).graph)}


def test_tasks_that_changed_since_the_plan_are_refused(
    store: Store, mine: TaskSet, tmp_path: Path
) -> None:
    from mor.train.run import Hooks

    [task, _] = evaluations(planned(store, mine).graph)
    (tmp_path / "mine.jsonl").write_text('{"text": "two"}')
    with pytest.raises(UserError, match="launch the study again"):
        Order(task, None).carry_out(Hooks())


@pytest.mark.parametrize("error", [None, UserError("no such task")])
def test_other_ranks_hear_from_the_first_until_it_has_scored(
    store: Store, mine: TaskSet, monkeypatch: Any, error: Exception | None
) -> None:
    from mor.train.run import Hooks

    said: list[Any] = []

    class Ranks:
        first = True

        def shared(self, value: Any) -> Any:
            said.append(value)
            return value

    def score(folder: Any, tasks: Any, extent: Any, hooks: Hooks) -> None:
        assert not any(hooks.should_stop() for _ in range(3))
        if error:
            raise error

    monkeypatch.setattr("sweeps.ranks._join", Ranks)
    monkeypatch.setattr("sweeps.ranks.KEEP_ALIVE_S", -1.0)
    monkeypatch.setattr("mor.evaluate.evaluation.evaluate_run", score)
    order = Order(evaluations(planned(store, mine).graph)[0], None)
    with contextlib.nullcontext() if error is None else pytest.raises(UserError):
        order.carry_out(Hooks())
    assert said == [False, False, False, True]

    heard = iter(said)
    monkeypatch.setattr(Ranks, "first", False)
    monkeypatch.setattr(Ranks, "shared", lambda self, value: next(heard))
    order.carry_out(Hooks())
    assert list(heard) == []


def test_a_study_that_grows_keeps_its_evaluations(store: Store, mine: TaskSet) -> None:
    for plan in (planned(store, mine), planned(store)):
        add_to_study(new_launch(plan, store.ledger, store.studies_dir / "s"))
    assert len(evaluations(store.view().tasks)) == len(BUDGETS)


def test_commands_know_evaluations(store: Store, mine: TaskSet) -> None:
    launch = new_launch(planned(store, mine), store.ledger, store.studies_dir / "s")
    add_to_study(launch)
    store.launch = launch
    first, second = store.runs()
    store.result(first)
    task = next(t for t in evaluations(store.view().tasks) if t.folder.run_id == first)
    store.begin(task.task_id, state="failed", error="no such file").end(1, "failed", "x")
    look = store.view().look()
    states = {row.name: row.state for row in look.evaluations}
    assert states[task.task_id] == "failed"
    assert {row.name for row in look.rows} == {first, second}
    assert next(row for row in look.rows if row.name == first).state == "done"
    text = str(board(look, 400))
    assert "2 evaluations not done (1 failed, 1 planned)" in text
    assert f"python -m sweeps why {task.task_id}" in text
    for named in (None, store.view().tasks[first], task):
        chosen, _ = runs_to_retry(look, named, failed=True, diverged=False)
        assert task.task_id in chosen
    assert find_target(first[:-1], store.studies_dir).task == store.view().tasks[first]
    assert find_target(task.task_id, store.studies_dir).task == task
    ended = cancel_run(store.view(), store.view().tasks[second])
    assert {one for one in ended.tasks if one.startswith(second)} == {
        second,
        f"{second}@evaluate-mine",
    }
    score(store, first, mine)
    assert task.task_id not in {row.name for row in store.view().look().evaluations}


def test_the_setting_names_presets_and_paths(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text('{"text": "one"}')

    def read(evaluate: Any) -> tuple[str, ...]:
        return study_config({"name": "s", "evaluate": evaluate}).evaluate

    path = str(tmp_path / "mine.jsonl")
    assert read(None) == ()
    assert read("paper") == ("paper",)
    assert read(["corpus", "mine.jsonl"]) == ("corpus", path)
    assert study_config({"name": "s", "evaluate": list(read("mine.jsonl"))}).evaluate == (path,)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.jsonl").write_text('{"text": "one"}')
    for wrong in ("papre", 3, ["paper", 3], ["mine.jsonl", "b/mine.jsonl"]):
        with pytest.raises(ConfigError) as refused:
            read(wrong)
        assert refused.value.setting == "study.evaluate"


def test_ids_do_not_know_evaluations(store: Store, mine: TaskSet) -> None:
    assert [run.run_id for run in planned(store, mine).runs] == store.runs()
    assert "evaluate" not in Config.__dataclass_fields__


# -- jobs --------------------------------------------------------------------------------------


def with_evaluations(nodes: list[Node], seconds: float) -> list[Node]:
    """Each run with an evaluation, in the order in which a plan has them."""
    scored = []
    for node in nodes:
        if not node.is_segment:
            task = replace(
                node.task,
                task_id=f"{node.task_id}@evaluate-x",
                kind=Kind.EVALUATION,
                depends_on=(node.task_id,),
                of_chain=node.chain,
            )
            scored.append(Node(task, node.task_id, seconds, node.shape))
    return sorted([*nodes, *scored], key=lambda n: (n.budget, n.task.rank, n.seconds))


@settings(max_examples=100, deadline=None)
@given(
    chains(6), st.sampled_from([5.0, 900.0]), st.sampled_from([0.0, 900.0, 1e5]), st.integers(1, 4),
    st.data(),
)  # fmt: skip
def test_an_evaluation_stands_with_its_run_or_waits_for_it(
    made: Any, seconds: float, pack_s: float, longest: int, data: st.DataObject
) -> None:
    nodes = [n for i, (s, shape, c) in enumerate(made) for n in trunk(f"t{i}", s, shape, c)]
    nodes = with_evaluations(nodes, seconds)
    runs = [n.task_id for n in nodes if n.task.is_run]
    gone = data.draw(st.lists(st.sampled_from(runs), unique=True))  # done, or in the queue
    queued = {name: f"9_{i}" for i, name in enumerate(gone) if i % 2}
    left = [
        replace(n, after=None) if n.after in gone and n.after not in queued else n
        for n in nodes
        if n.task_id not in gone
    ]
    arrays = submitted(arrays_of(left, queued, pack_s, longest))
    jobs, waits = job_of(arrays), waits_for(arrays)
    assert sorted(jobs) == sorted(n.task_id for n in left)
    for node in left:
        if not node.task.is_evaluation:
            continue
        if node.after in queued:
            assert waits[node.task_id] == queued[node.after]
        elif node.after is not None:
            assert jobs[node.task_id] == jobs[node.after]
    for array in arrays:  # an evaluation that fails cancels nothing
        for unit in array.units:
            if any(node.task.is_evaluation for node in unit.nodes):
                assert not {jobs[n] for n in unit.tasks} & set(waits.values())
