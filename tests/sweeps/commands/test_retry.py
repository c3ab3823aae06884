"""What `retry` hands to a backend: the tasks that were chosen, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.evaluation import Evaluation
from mor.config import Config
from mor.evaluate.task_sets import TaskSet, task_set
from sweeps import backends
from sweeps.backends.base import Backend, Submission
from sweeps.commands.retry import launch_again, runs_to_retry
from sweeps.config import ClusterConfig, SweepConfig, sweep_config
from sweeps.launches import add_to_study, keep_settings, new_launch
from sweeps.plan import build_plan
from sweeps.study import kept_settings
from tests.sweeps.store import Store

submitted: list[Submission] = []


class Noted(Backend):
    """Takes what is submitted and does nothing about it."""

    name = "noted"

    def present(self) -> bool:
        return True

    def prepare(self, study: SweepConfig, configs: list[Config]) -> ClusterConfig:
        return ClusterConfig("cpu", 0.3)

    def submit(self, submission: Submission) -> None:
        keep_settings(submission.study, self.name)
        submitted.append(submission)


@pytest.fixture(autouse=True)
def noted() -> Iterator[None]:
    backends.register("noted", Noted)
    yield
    backends._REGISTERED.pop("noted")
    submitted.clear()


@pytest.fixture
def sets(tmp_path: Path) -> list[TaskSet]:
    (tmp_path / "mine.jsonl").write_text('{"text": "one"}')
    return [task_set("corpus"), task_set(str(tmp_path / "mine.jsonl"))]


@pytest.fixture
def store(tmp_path: Path, sets: list[TaskSet], monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two runs that are done, which an earlier launch was to score and the newest one was not."""
    monkeypatch.setenv("PATH", "/nowhere")  # no Slurm
    store = Store(tmp_path, [1e8, 2e8])
    for run in store.runs():
        store.result(run)
    configs = [run.config for run in store.plan.runs]
    plan = build_plan("s", configs, store.ledger, ClusterConfig("cpu", 0.3), sets)
    add_to_study(new_launch(plan, store.ledger, store.studies_dir / "s"))
    keep(store)
    return store


def keep(store: Store, *evaluate: str) -> None:
    """The settings of the newest launch."""
    values = {
        **{"launch": {"mode": "noted"}, "cluster": {}},
        **{"study": {"name": "s", "evaluate": list(evaluate)}},
        **{"runs_dir": str(store.ledger.runs_dir), "studies_dir": str(store.studies_dir)},
    }
    keep_settings(sweep_config(values), "noted")


def retried(store: Store, named: str | None = None) -> set[str]:
    """Tasks that a backend gets to do where a study or one of its tasks is named."""
    view = store.view()
    task = view.tasks[named] if named else None
    chosen, _ = runs_to_retry(view.look(), task, failed=True, diverged=False)
    launch_again(view, chosen, diverged=False)
    return {task.task_id for task in submitted[-1].plan.graph.left()}


def test_evaluations_of_an_earlier_launch_are_retried(store: Store, sets: list[TaskSet]) -> None:
    run, other = store.runs()
    every = {f"{one}@evaluate-{name}" for one in store.runs() for name in ("corpus", "mine")}
    assert retried(store) == every
    assert retried(store, run) == {one for one in every if one.startswith(run)}
    for one in every:
        assert retried(store, one) == {one}
    assert kept_settings(store.view().folder).study.evaluate == ()  # a retry changes no setting
    for scored in sets:
        evaluation = Evaluation(fingerprint=scored.fingerprint)
        store.ledger.folder(other).write_evaluation(scored.name, evaluation)
    assert retried(store) == {one for one in every if one.startswith(run)}


def test_a_run_is_not_scored_because_another_one_is(store: Store) -> None:
    run, other = store.runs()
    store.ledger.folder(other).result_file.unlink()
    corpus = f"{run}@evaluate-corpus"
    view = store.view()
    launch_again(view, [other, corpus], diverged=False)
    left = {task.task_id for task in submitted[-1].plan.graph.left()}
    assert {one for one in left if "@evaluate" in one} == {corpus}
    assert other in left


def test_the_newest_settings_say_what_a_name_stands_for(store: Store, tmp_path: Path) -> None:
    run = store.runs()[0]
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "mine.jsonl").rename(tmp_path / "moved" / "mine.jsonl")
    keep(store, str(moved))
    assert retried(store, f"{run}@evaluate-mine") == {f"{run}@evaluate-mine"}
    [one] = submitted[-1].plan.evaluations
    assert one.tasks.path == moved
