"""From the runs of a study to a plan, and from a plan to a launch."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from ledger.errors import UserError
from ledger.files import write_json
from ledger.store import Ledger
from mor.config import Config, DataConfig
from mor.data.fingerprint import fingerprint
from mor.train.origin import with_origin
from mor.train.tracking import refuse_without_key
from sweeps.config import SweepConfig, sweep_config
from sweeps.launch.files import SETTINGS, keep_settings
from sweeps.plan import Plan, build_plan
from sweeps.ranks import refuse_several
from sweeps.routing import print_routing
from sweeps.tables import print_plan


class LaunchFailed(UserError):
    """Some runs of a launch did not end well; each was reported with its log."""


def with_fingerprints(configs: Iterable[Config]) -> list[Config]:
    """The configurations with the fingerprints of their data, and of the weights that they start
    from, filled in."""
    found: dict[DataConfig, DataConfig] = {}
    filled = []
    for config in configs:
        data = config.data
        if data not in found:
            found[data] = dataclasses.replace(data, fingerprint=fingerprint(data))
        filled.append(with_origin(dataclasses.replace(config, data=found[data])))
    return filled


def launch_study(study: SweepConfig, runs: Iterable[Config]) -> None:
    """Plan a study and carry the plan out as `launch.mode` says.

    Raises ConfigError for what cannot be planned or launched, LaunchFailed where runs failed.
    """
    refuse_several("and -m starts many")
    launch_configs(study, with_fingerprints(runs))


def launch_configs(study: SweepConfig, configs: list[Config]) -> None:
    """The same for configurations whose data has its fingerprint, as a saved plan holds them."""
    console = Console()
    ledger = Ledger(Path(study.runs_dir).absolute())
    mode = study.launch.mode
    if mode == "auto":
        mode = "slurm" if shutil.which("sbatch") else "local"
    plan = build_plan(study.study.name, configs, ledger, study.cluster)
    if study.launch.plan_file:
        write_plan_file(plan, Path(study.launch.plan_file))
    if mode == "plan":
        print_plan(plan, console)
        console.print("launch=local trains it here, launch=slurm on a cluster", highlight=False)
        return
    refuse_unwritable("runs_dir", ledger.runs_dir)
    refuse_unwritable("studies_dir", Path(study.studies_dir).absolute())
    refuse_without_key(configs)
    if mode != "slurm":
        refuse_without_gpu(configs)
    if mode == "slurm":
        from sweeps.launch.slurm import launch_slurm

        launch_slurm(plan, ledger, study, console)
        return
    _launch_here(study, configs, ledger, console)


def _launch_here(
    study: SweepConfig, configs: list[Config], ledger: Ledger, console: Console
) -> None:
    from sweeps.launch.local import launch_local, pool_size, refuse_too_long, this_machine

    machine = this_machine(configs)
    plan = build_plan(study.study.name, configs, ledger, machine)
    workers = pool_size(plan, study.launch)
    refuse_too_long(plan, study.launch, workers)
    keep_settings(study, "local")
    totals = plan.totals()
    if totals["remaining"]["runs"] == 0:
        console.print(f"all {len(plan.runs)} runs of study {plan.study} are done already")
    else:
        print_plan(plan, console)
    folder = Path(study.studies_dir).absolute() / plan.study
    labelled = any(run.config.label for run in plan.runs)
    outcome = launch_local(plan, ledger, folder, workers, console)
    print_routing((ledger.folder(run.run_id).result() for run in plan.runs), console)
    console.print(
        f"{outcome.done} of {len(plan.runs)} runs done. "
        f"{_next(labelled)} {os.path.relpath(folder)}",
        highlight=False,
        soft_wrap=True,
    )
    if outcome.failed or outcome.left:
        raise LaunchFailed(
            f"study {plan.study}: {outcome.failed} runs failed (see above) and {outcome.left} did "
            "not end; mend the cause, and the same command goes on from the newest checkpoints"
        )


def kept_settings(study_folder: Path) -> SweepConfig:
    """The settings of a study's newest launch. Raises UserError where they are not there."""
    try:
        values = json.loads((study_folder / SETTINGS).read_text())
    except (OSError, ValueError):
        raise UserError(
            f"study {study_folder.name}: {study_folder / SETTINGS} is missing; "
            "type the command again that launched it, what is done is skipped"
        ) from None
    settings = sweep_config(values)
    return dataclasses.replace(settings, studies_dir=str(study_folder.parent))


def _next(labelled: bool) -> str:
    """What to type when a study has ended: its variants are tables, its axes are curves."""
    if labelled:
        return "Its tables and figures: python -m analysis figures"
    return "Fits and charts on one page: python -m analysis report"


def write_plan_file(plan: Plan, path: Path) -> None:
    """Write the plan as JSON. Raises UserError where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, plan.as_json())
    except OSError as error:
        raise UserError(
            f"launch.plan_file={path}: cannot be written ({error.strerror}); choose another path"
        ) from None


def refuse_without_gpu(configs: Iterable[Config]) -> None:
    """Raises ConfigError where a run asks for a GPU and this machine has none."""
    asking = next((config for config in configs if config.runtime.device == "cuda"), None)
    if asking is not None:
        from mor.train.run import choose_device  # torch: only where somebody asks for a GPU

        choose_device(asking)


def refuse_unwritable(setting: str, folder: Path) -> None:
    """Raises UserError where a folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{setting}={folder}: cannot be written ({error.strerror}); "
            f"choose another with {setting}=<folder>"
        ) from None
