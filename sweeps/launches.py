"""Writing a launch: the plan with its configurations, which every worker reads."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from ledger.damage import set_aside
from ledger.errors import DamagedFile
from ledger.files import locked, write_json
from ledger.plan_file import (
    LaunchFolder,
    StudyFolder,
    digest_of,
    launch_plans,
    read_whole_plan,
    together,
    write_plan,
)
from ledger.store import Ledger
from mor.config import to_dict
from sweeps.config import SweepConfig
from sweeps.plan import Plan


@dataclass(frozen=True)
class Launch:
    """A launch of a study, whose plan is written."""

    folder: LaunchFolder
    runs_dir: Path
    study: str

    @property
    def launch_id(self) -> str:
        return self.folder.launch_id

    @property
    def arguments(self) -> tuple[Path, Path, str, str]:
        """Of `sweeps.worker.work`."""
        return (self.folder.plan_file, self.runs_dir, self.launch_id, self.study)


def new_launch(plan: Plan, ledger: Ledger, study_folder: Path) -> Launch:
    """Write the plan for the workers of a new launch."""
    launch_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    folder = StudyFolder(study_folder).launch(launch_id)
    folder.path.mkdir(parents=True)
    folder.workers.mkdir(mode=0o700)  # no other user may write submitit's pickles
    write_plan(folder.plan_file, plan.for_workers())
    return Launch(folder, ledger.runs_dir, plan.study)


def add_to_study(launch: Launch) -> None:
    """Add a launch's runs to the study's own plan: a narrower command never shrinks a study.

    A study's plan that is damaged is set aside and made again from those of its launches.
    """
    study = launch.folder.study
    new = read_whole_plan(launch.folder.plan_file)
    with locked(study.lock_file):  # launches at the same time would write over each other's runs
        try:
            earlier = [read_whole_plan(study.plan_file)] if study.plan_file.exists() else []
        except DamagedFile:
            set_aside(study.plan_file)
            set_aside(digest_of(study.plan_file))
            earlier = launch_plans(study)  # this launch's again, which changes nothing
        write_plan(study.plan_file, together([*earlier, new]))


def keep_settings(study: SweepConfig, mode: str) -> None:
    """Keep what is around the runs beside the study's plan, for `python -m sweeps retry`.

    For launches that were accepted: a refused one must leave the settings of the one before.
    """
    evaluate = {"evaluate": list(study.study.evaluate)} if study.study.evaluate else {}
    settings = {**to_dict(study), "study": {"name": study.study.name, **evaluate}}
    settings["launch"] = {**settings["launch"], "mode": mode, "plan_file": None}
    folder = StudyFolder(Path(study.studies_dir).absolute() / study.study.name)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json(folder.settings_file, settings)
