"""`python -m sweeps benchmark STUDY`: how fast each model and size of a study trains."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from ledger.errors import UserError
from mor.config import ConfigError
from sweeps import backends
from sweeps.commands.find import study_view
from sweeps.measuring import calibrate, print_speeds
from sweeps.study import kept_settings
from sweeps.terminal import plain_console


def benchmark(
    study: str | None, studies_dir: Path, seconds: float | None, again: bool, as_json: bool
) -> None:
    """Measure on the backend of the study's newest launch, and print what is known then.

    Raises UserError where the study has no runs, or the backend refuses the jobs.
    """
    view = study_view(study, studies_dir)
    settings = kept_settings(view.folder)
    launch = settings.launch
    if seconds is not None:
        if not seconds > 0:
            raise ConfigError("seconds", f"{seconds:g}", "must be above 0", "type --seconds 60")
        launch = dataclasses.replace(launch, calibrate_s=seconds)
    runs_dir = str(view.ledger.runs_dir)
    settings = dataclasses.replace(settings, launch=launch, runs_dir=runs_dir)
    configs = [task.config for task in view.tasks if task.is_run]
    if not configs:
        raise UserError(f"study {view.folder.name}: has no runs to measure")
    console = plain_console(file=sys.stderr) if as_json else plain_console()
    found = calibrate(settings, configs, backends.backend(launch.mode), console, again)
    if as_json:
        print(json.dumps({"speeds": [one.to_dict() for one in found]}, indent=1))
        return
    print_speeds(found, console)
