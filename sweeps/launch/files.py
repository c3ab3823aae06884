"""The files of one launch: the plan with its configurations, which every worker reads."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from mor.files import write_json
from sweeps.ledger import Ledger
from sweeps.plan import Plan


@dataclass(frozen=True)
class Launch:
    """A launch of a study: `studies/<name>/launches/<launch_id>/`."""

    launch_id: str
    folder: Path
    plan_file: Path
    arguments: tuple[Path, Path, str, str]  # of sweeps.worker.work


def new_launch(plan: Plan, ledger: Ledger, study_folder: Path) -> Launch:
    """Write the plan for the workers of a new launch, and as the study's newest."""
    launch_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    folder = study_folder / "launches" / launch_id
    folder.mkdir(parents=True)
    contents = {**plan.as_json(configs=True), "runs_dir": str(ledger.runs_dir)}
    plan_file = folder / "plan.json"
    write_json(plan_file, contents)
    write_json(study_folder / "plan.json", contents)
    arguments = (plan_file, ledger.runs_dir, launch_id, plan.study)
    return Launch(launch_id, folder, plan_file, arguments)
