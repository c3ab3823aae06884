"""A backend that nobody here knows: plain processes with a queue, added through the registry."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.jobs import NO_JOB, Job, JobRun
from ledger.plan_file import StudyFolder
from mor.config import Config
from sweeps import backends
from sweeps.backends.base import Backend, QueuedJob, Submission
from sweeps.backends.submitted import Record, queued_tasks
from sweeps.config import ClusterConfig, SweepConfig, sweep_config
from sweeps.launches import add_to_study, keep_settings, new_launch
from sweeps.study import launch_configs
from sweeps.watch import StudyView

REPO = Path(__file__).parents[3]
WORK = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(REPO)!r})
from sweeps import backends
from sweeps.worker import work
from tests.sweeps.backends.test_third import Processes
backends.register("processes", Processes)
work(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
"""
running: dict[str, subprocess.Popen[bytes]] = {}


class Processes(Backend):
    """One process for each submission; its job id is `process-<pid>`."""

    name = "processes"

    def present(self) -> bool:
        return True

    def prepare(self, study: SweepConfig, configs: list[Config]) -> ClusterConfig:
        return ClusterConfig("cpu", 0.3)

    def submit(self, submission: Submission) -> None:
        plan, studies = submission.plan, Path(submission.study.studies_dir)
        queued = queued_tasks(studies, submission.ledger.runs_dir)
        tasks = [task.task_id for task in plan.graph.left() if task.task_id not in queued]
        if not tasks:
            return
        launch = new_launch(plan, submission.ledger, studies / plan.study)
        add_to_study(launch)
        keep_settings(submission.study, self.name)
        command = [sys.executable, "-c", WORK, *map(str, launch.arguments)]
        process = subprocess.Popen(command, env={**os.environ, "IN_PROCESS": "1"})
        job_id = f"process-{process.pid}"
        running[job_id] = process
        record = Record(launch.folder, submission.ledger.runs_dir, {})
        record.add(job_id, {}, None, [(job_id, tasks)])

    def owns(self, job_id: str) -> bool:
        return job_id.startswith("process-")

    def jobs(self, job_ids: Iterable[str]) -> dict[str, QueuedJob]:
        alive = (name for name in job_ids if name in running and running[name].poll() is None)
        return {name: QueuedJob(name, "busy", "", os.uname().nodename) for name in alive}

    def history(self, job_ids: Iterable[str]) -> dict[str, list[JobRun]] | None:
        killed = [name for name in job_ids if name in running and (running[name].poll() or 0) < 0]
        return {name: [JobRun(name, 0.0, 1.0, "out of memory")] for name in killed}

    def cancel(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            running[job_id].terminate()

    def this_job(self) -> Job:
        return Job(f"process-{os.getpid()}") if "IN_PROCESS" in os.environ else NO_JOB


@pytest.fixture
def study(tmp_path: Path) -> Iterator[SweepConfig]:
    backends.register("processes", Processes)
    values = {
        **{"launch": {"mode": "processes"}, "cluster": {}, "study": {"name": "third"}},
        **{"runs_dir": str(tmp_path / "runs"), "studies_dir": str(tmp_path / "studies")},
    }
    yield sweep_config(values)
    for process in running.values():
        process.kill()
        process.wait()
    running.clear()
    backends._REGISTERED.pop("processes")


def view(study: SweepConfig) -> StudyView:
    from ledger.store import Ledger

    folder = StudyFolder(Path(study.studies_dir) / "third")
    return StudyView(folder.plan_file, Ledger(Path(study.runs_dir)))


def test_a_study_runs_on_a_backend_that_was_added(study, toy_run):
    runs = [toy_run("vanilla", steps=8), toy_run("mor", steps=8)]
    launch_configs(study, runs)
    [(job_id, process)] = running.items()
    launch_configs(study, runs)
    assert len(running) == 1  # what is queued is not submitted again
    assert process.wait(timeout=120) == 0
    look = view(study).look()
    assert look.counts() == {"done": 2}
    assert {row.job_id for row in look.rows} == {job_id}
    launch_configs(study, runs)
    assert len(running) == 1


def test_it_is_asked_why_a_job_ended_and_to_end_it(study, toy_run):
    from sweeps.commands.cancel import cancel_study

    config = toy_run("vanilla", steps=200_000)
    launch_configs(study, [replace(config, train=replace(config.train, branch=False))])
    [(job_id, process)] = running.items()
    [task] = view(study).tasks
    while not (task.folder.status() or {}).get("step"):
        assert process.poll() is None
    process.kill()
    process.wait()
    [row] = view(study).look().rows
    assert row.state == "out of memory"
    launch_configs(study, [task.config])
    cancelled = cancel_study(view(study))
    assert cancelled.tasks == (task.task_id,)
    [second] = set(running) - {job_id}
    assert cancelled.jobs == (second,)
    assert running[second].wait(timeout=60) is not None


def test_auto_is_the_first_backend_that_is_present(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert backends.backend("auto").name == "local"
