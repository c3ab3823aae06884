"""From the runs of a study to a plan, and from a plan to a launch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from ledger.errors import UserError
from ledger.files import write_json
from ledger.plan_file import StudyFolder
from ledger.store import Ledger
from mor.config import Config, DataConfig
from mor.data.look import refuse_no_room, refuse_unreadable, with_fingerprint
from mor.data.needs import corpus_folder
from mor.data.origins import refuse_another_copy
from mor.evaluate.task_sets import TaskSet, task_set
from mor.train.origin import with_origin
from mor.train.tracking import refuse_without_key
from sweeps import backends
from sweeps.backends.base import Submission
from sweeps.config import SWEEP_KEYS, LaunchConfig, SweepConfig, sweep_config
from sweeps.corpora import say_corpora
from sweeps.damage import say_damage
from sweeps.forecasts import forecast
from sweeps.measuring import calibrate, print_speeds
from sweeps.places import refuse_unwritable
from sweeps.plan import Plan, build_plan
from sweeps.ranks import refuse_several
from sweeps.tables import print_plan
from sweeps.tasks import Task
from sweeps.terminal import plain_console


def with_fingerprints(configs: Iterable[Config]) -> list[Config]:
    """The configurations with the fingerprints of their data, and of the weights that they start
    from, filled in. Raises ConfigError for data that cannot be had or read."""
    found: dict[DataConfig, DataConfig] = {}
    filled = []
    for config in configs:
        data = config.data
        if data not in found:
            found[data] = with_fingerprint(data)
        filled.append(with_origin(dataclasses.replace(config, data=found[data])))
    refuse_unreadable(found.values())
    return filled


def task_sets(study: SweepConfig) -> list[TaskSet]:
    """What each run is scored on. Raises ConfigError, UserError."""
    return [task_set(given, "study.evaluate") for given in study.study.evaluate]


def launch_study(study: SweepConfig, runs: Iterable[Config]) -> None:
    """Plan a study and carry the plan out as `launch.mode` says.

    Raises ConfigError for what cannot be planned or launched, LaunchFailed where runs failed.
    """
    refuse_several("and -m starts many")
    launch_configs(study, with_fingerprints(runs))


def launch_configs(
    study: SweepConfig, configs: list[Config], scored: Collection[Task] = ()
) -> None:
    """The same for configurations whose data has its fingerprint, as a saved plan holds them.

    `scored`: evaluations of an earlier launch that are wanted beside those of the settings.
    """
    console = plain_console()
    ledger = Ledger(Path(study.runs_dir).absolute())
    if study.launch.calibrate:
        mode = "local" if study.launch.mode == "plan" else study.launch.mode  # here, to look
        print_speeds(calibrate(study, configs, backends.backend(mode), console), console)
    plan = _planned(study, configs, ledger, scored)
    refuse_changed(plan)
    say_damage(plan, console)
    if study.launch.plan_file:
        file = Path(study.launch.plan_file).expanduser()
        write_plan_file(plan, file)
        console.print(f"plan written to {file}", highlight=False, markup=False, soft_wrap=True)
    if study.launch.mode == "plan":
        print_plan(plan, console)
        say_corpora(plan, console)
        console.print("launch=local trains it here, launch=slurm on a cluster", highlight=False)
        say_too_dear(plan, study.launch, console)
        return
    refuse_unwritable("runs_dir", ledger.runs_dir)
    refuse_unwritable("studies_dir", Path(study.studies_dir).absolute())
    refuse_without_key(configs)
    refuse_full(plan)
    backend = backends.backend(study.launch.mode)
    machine = backend.prepare(study, configs)
    priced = plan if machine == study.cluster else plan.priced_on(machine)
    if study.launch.forecast:
        forecast(priced, StudyFolder(Path(study.studies_dir).absolute() / plan.study), console)
    say_corpora(plan, console)
    backend.submit(Submission(priced, ledger, study, console))


def _planned(
    study: SweepConfig, configs: list[Config], ledger: Ledger, scored: Collection[Task]
) -> Plan:
    """The plan of a launch; of evaluations that its settings do not ask for, those of `scored`."""
    own = task_sets(study)
    named = {one.name for one in own}
    wanted = {
        one.task_id: one.evaluate for one in scored if one.evaluate and one.task_set not in named
    }
    more = [task_set(given, "study.evaluate") for given in sorted(set(wanted.values()))]
    plan = build_plan(study.study.name, configs, ledger, study.cluster, [*own, *more])
    found = [
        one
        for one in plan.evaluations
        if one.tasks in own or wanted.get(one.evaluation_id) == one.tasks.given
    ]
    return dataclasses.replace(plan, evaluations=found)


def say_too_dear(plan: Plan, launch: LaunchConfig, console: Console) -> None:
    """That the plan would not be submitted as it is."""
    needed = plan.totals()["remaining"]["gpu_hours"]
    if launch.max_gpu_hours is not None and needed > launch.max_gpu_hours:
        console.print(
            f"launch=slurm will refuse it: launch.max_gpu_hours={launch.max_gpu_hours:g} and "
            f"{needed:.3g} are needed",
            highlight=False,
            soft_wrap=True,
        )


def refuse_changed(plan: Plan) -> None:
    """Raises ConfigError where more is to be prepared from a copy that is not what it was."""
    for data in {one.data for one in plan.data if one.missing}:
        refuse_another_copy(data, corpus_folder(data))


def refuse_full(plan: Plan) -> None:
    """Raises ConfigError where the disk does not hold the tokens that are to be prepared."""
    for one in plan.data:
        refuse_no_room(one.data, one.missing)


def kept_settings(folder: StudyFolder) -> SweepConfig:
    """The settings of a study's newest launch. Raises UserError where they are not there."""
    try:
        values = json.loads(folder.settings_file.read_text())
    except (OSError, ValueError):
        values = None
    if not _has_all(values):
        raise UserError(
            f"study {folder.name}: {folder.settings_file} is missing or not what was written; "
            "type the command again that launched it, what is done is skipped"
        )
    settings = sweep_config(values)
    return dataclasses.replace(settings, studies_dir=str(folder.path.parent))


def _has_all(values: Any) -> bool:
    """Whether kept settings have all that stands around runs."""
    if not isinstance(values, dict) or not values.keys() >= SWEEP_KEYS:
        return False
    groups = [values[name] for name in ("launch", "cluster", "study")]
    return all(isinstance(group, dict) for group in groups) and "name" in values["study"]


def write_plan_file(plan: Plan, path: Path) -> None:
    """Write the plan as JSON. Raises UserError where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, plan.as_file().to_dict())
    except OSError as error:
        raise UserError(
            f"launch.plan_file={path}: cannot be written ({error.strerror}); choose another path"
        ) from None
