"""A backend that trains in the process that launches: the worker's own function, no other one."""

from __future__ import annotations

import threading
from pathlib import Path

from ledger.plan_file import LaunchFolder
from mor.config import Config
from sweeps.backends.base import Backend, LaunchFailed, Submission
from sweeps.config import ClusterConfig, SweepConfig
from sweeps.damage import SetAside
from sweeps.launches import add_to_study, keep_settings, new_launch
from sweeps.worker import queue_of, stop_on_signals, work_on


class Inline(Backend):
    """launch.mode=inline, once it is registered."""

    name = "inline"

    def present(self) -> bool:
        return True

    def prepare(self, study: SweepConfig, configs: list[Config]) -> ClusterConfig:
        return ClusterConfig("cpu", 0.3)

    def submit(self, submission: Submission) -> None:
        plan, ledger, study = submission.plan, submission.ledger, submission.study
        keep_settings(study, self.name)
        files = new_launch(plan, ledger, Path(study.studies_dir).absolute() / plan.study)
        add_to_study(files)
        damaged = SetAside(plan)
        main = threading.current_thread() is threading.main_thread()
        stop = stop_on_signals() if main else threading.Event()
        queue = queue_of(files.folder.plan_file, ledger.runs_dir, files.launch_id)
        work_on(queue, plan.study, stop)
        damaged.say(submission.console)
        states = {run.run_id: ledger.state(run.run_id) for run in plan.runs}
        left = {name: state for name, state in states.items() if state != "done"}
        if left:
            raise LaunchFailed(f"{LaunchFolder(files.folder.path).launch_id}: {left}")
