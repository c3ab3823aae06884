"""The files of one launch: the plan with its configurations, which every worker reads."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from ledger.files import write_json
from ledger.store import Ledger
from mor.config import to_dict
from sweeps.config import SweepConfig
from sweeps.plan import Plan

SETTINGS = "settings.json"  # in a study's folder


@dataclass(frozen=True)
class Launch:
    """A launch of a study: `studies/<name>/launches/<launch_id>/`."""

    launch_id: str
    folder: Path
    plan_file: Path
    arguments: tuple[Path, Path, str, str]  # of sweeps.worker.work


def new_launch(plan: Plan, ledger: Ledger, study_folder: Path) -> Launch:
    """Write the plan for the workers of a new launch."""
    launch_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    folder = study_folder / "launches" / launch_id
    folder.mkdir(parents=True)
    contents = {**plan.as_json(configs=True), "runs_dir": str(ledger.runs_dir)}
    plan_file = folder / "plan.json"
    write_json(plan_file, contents)
    arguments = (plan_file, ledger.runs_dir, launch_id, plan.study)
    return Launch(launch_id, folder, plan_file, arguments)


def add_to_study(launch: Launch) -> None:
    """Add a launch's runs to the study's own plan: a narrower command never shrinks a study."""
    study_file = launch.folder.parents[1] / "plan.json"
    new = json.loads(launch.plan_file.read_text())
    if study_file.exists():
        old = json.loads(study_file.read_text())
        for kind, key in (("runs", "run_id"), ("segments", "segment_id")):
            entries = {entry[key]: entry for entry in [*old.get(kind, []), *new[kind]]}
            new[kind] = list(entries.values())
        new.pop("totals")  # of this launch alone
    write_json(study_file, new)


def keep_settings(study: SweepConfig, mode: str) -> None:
    """Keep what is around the runs beside the study's plan, for `python -m sweeps retry`.

    For launches that were accepted: a refused one must leave the settings of the one before.
    """
    settings = {**to_dict(study), "study": {"name": study.study.name}}
    settings["launch"] = {**settings["launch"], "mode": mode, "plan_file": None}
    folder = Path(study.studies_dir).absolute() / study.study.name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, settings)
