"""What a user means: a study by its name or folder, a run by any unique beginning of its id."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ledger.errors import UserError
from ledger.folder import RunFolder
from ledger.ids import folder_of
from ledger.plan_file import StudyFolder, read_plan, study_folders
from ledger.store import Ledger
from sweeps.tasks import Task
from sweeps.watch import StudyView

LISTED = 10  # of several runs that a beginning may mean


@dataclass(frozen=True)
class Target:
    """A study, and one task of it where a run or trunk segment was named."""

    view: StudyView
    task: Task | None = None


def study_view(study: str | None, studies_dir: Path) -> StudyView:
    """A study by name or path; None: the one that was launched last. Raises UserError."""
    if study is not None:
        return _view(_plan_file(studies_dir, study))
    plans = _plans(studies_dir)
    if not plans:
        raise UserError(
            f"--studies-dir={studies_dir}: no study was launched from here yet; "
            "type python sweep.py -m study=quick"
        )
    return _view(plans[0])


def _plan_file(studies_dir: Path, study: str) -> Path:
    """Where the newest plan of a study lies, by its name or its folder. Raises UserError."""
    if file := plan_named(study, studies_dir):
        return file
    known = [one.name for one in study_folders(studies_dir)]
    instead = "known studies: " + ", ".join(known) if known else "no study was launched yet"
    raise UserError(f"study {study}: no plan in {studies_dir / study}; {instead}")


def plan_named(name: str, studies_dir: Path) -> Path | None:
    """The plan of the study that has this name or folder; None: it is no study."""
    files = (StudyFolder(folder).plan_file for folder in (Path(name), studies_dir / name))
    return next((file for file in files if file.is_file()), None)


def find_target(name: str, studies_dir: Path) -> Target:
    """A study, or a task of the newest study that has it. Raises UserError."""
    if file := plan_named(name, studies_dir):
        return Target(_view(file))
    views, broken = [], list[UserError]()
    for plan in _plans(studies_dir):
        try:
            views.append(_view(plan))
        except UserError as error:  # of another study, perhaps
            broken.append(error)
            continue
        if whole := _task(views[-1], name):
            return Target(views[-1], whole)
    named = "@" in name  # an evaluation, or a segment
    ids = {t.task_id for view in views for t in view.tasks if named or not t.is_evaluation}
    if broken and not any(one.startswith(name) for one in ids):
        raise broken[0]
    if not ids:
        raise UserError(f"{name}: no study in {studies_dir}; name a study or a run of one")
    if not any(one.startswith(name) for one in ids):
        studies = sorted(view.study for view in views)
        raise UserError(
            f"{name}: no such study or run of one; studies are {_listed(studies)}, runs "
            f"{_nearest(name, ids)}; a run that was trained without -m belongs to no study, "
            "python -m sweeps logs shows it"
        )
    found = _unique(name, ids, "study or run")
    return next(Target(view, task) for view in views if (task := _task(view, found)))


def _task(view: StudyView, task_id: str) -> Task | None:
    return next((task for task in view.tasks if task.task_id == task_id), None)


def find_folder(name: str, studies_dir: Path, runs_dir: Path) -> RunFolder:
    """The folder of a run or trunk, of a study or trained alone. Raises UserError."""
    stores = {runs_dir.absolute()}
    planned: dict[str, Path] = {}
    for plan_file in _plans(studies_dir):
        try:
            plan = read_plan(plan_file)
        except UserError:  # its runs are found in the store
            continue
        store = Path(plan.runs_dir or runs_dir)
        if not store.is_dir():  # it was moved: --runs-dir names it
            continue
        stores.add(store)
        planned.update({run.run_id: store / run.run_id for run in plan.runs})
        planned.update({s.trunk_id: store / s.trunk_id for s in plan.segments})
    for store in stores:
        if store.is_dir():
            planned.update({path.name: path for path in store.iterdir() if path.is_dir()})
    if not planned:
        raise UserError(f"{name}: no runs in {runs_dir} or {studies_dir}; type --runs-dir=<folder>")
    return RunFolder(planned[_unique(folder_of(name), planned, "run")])


def _unique(name: str, ids: Iterable[str], kind: str) -> str:
    """The one id that begins with a name. Raises UserError that lists what it may mean."""
    every = sorted(set(ids))
    if name in every:
        return name
    found = [one for one in every if one.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{name}: {len(found)} runs begin so; type more of one: {_listed(found)}")
    raise UserError(f"{name}: no such {kind}; there are {_nearest(name, every)}")


def _nearest(name: str, ids: Iterable[str]) -> str:
    """Ids that a misspelt one may mean, else the first of all."""
    every = sorted(ids)
    within = [one for one in every if name in one]
    return _listed(within or difflib.get_close_matches(name, every, LISTED) or every)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _plans(studies_dir: Path) -> list[Path]:
    """The studies' plans, newest first."""
    plans = [study.plan_file for study in study_folders(studies_dir)]
    return sorted(plans, key=lambda path: path.stat().st_mtime, reverse=True)


def _view(plan_file: Path) -> StudyView:
    """Raises UserError where the run store is not where the plan has it: all runs would look as if
    they had not begun, and be trained again."""
    plan = read_plan(plan_file)
    store = Path(plan.runs_dir or "runs")
    if plan.runs_dir and not store.is_dir():  # each launch makes it
        raise UserError(
            f"study {plan.study}: its plan names the run store runs_dir={store}, which is not a "
            "folder; where it was moved, type the command that launched the study once more with "
            "runs_dir=<its folder>, what is done there is skipped"
        )
    return StudyView(plan_file, Ledger(store), plan)
