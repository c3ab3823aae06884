"""Finished runs with their settings, study by study: what the paper's tables are made from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from analysis.errors import AnalysisError
from analysis.points.run_store import need, number, read_study, result_of
from ledger.errors import DamagedFile, UserError
from ledger.evaluation import PAPER
from ledger.folder import RunFolder
from ledger.ids import is_trunk
from ledger.plan_file import StudyFolder, study_folders
from ledger.result import LOSS_KEYS, Result
from ledger.settings import flatten

NEEDED = ("run_id", "model", "size", "budget", "tokens", "n_params_nonembedding")
# Routers that make an architecture of its own of the unshared stack that they stand in.
OF_ROUTER = {"mod": "mod"}


@dataclass(frozen=True)
class Run:
    """A run that ended, done or diverged: its `result.json`, and its settings by dotted names."""

    result: Result
    folder: Path
    loss: str = "causal"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`model.router.type` and its like; from `config.yaml` where the result has none."""
        given: Any = self.result.settings
        if not given:
            try:
                text = RunFolder(self.folder).config_file.read_text()
                given = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            except (OSError, yaml.YAMLError):
                given = None
        return flatten(given) if isinstance(given, dict) else {}

    def setting(self, name: str, default: Any = None) -> Any:
        """One setting by its dotted name."""
        return self.settings.get(name, default)

    def has(self, wanted: Mapping[str, Any]) -> bool:
        """Whether every setting of `wanted` has that value here."""
        return all(self.setting(name) == value for name, value in wanted.items())

    @property
    def run_id(self) -> str:
        """Its name in the store."""
        return self.result.run_id

    @property
    def architecture(self) -> str:
        """vanilla, recursive or mor."""
        own = str(self.setting("model.architecture", self.result.model))
        return OF_ROUTER.get(self.router, own)

    @property
    def recursions(self) -> int:
        """Nr; 1 for a vanilla model."""
        return int(self.setting("model.n_recursions", 1))

    @property
    def router(self) -> str:
        """none, expert or token."""
        return str(self.setting("model.router.type", "none"))

    @property
    def nll(self) -> float:
        """Validation loss in nats per token, under the routing that was asked for; NaN if none."""
        return number(self.result.loss.get(LOSS_KEYS[self.loss]))

    @property
    def routing(self) -> dict[str, Any]:
        """What was measured of the router; empty where nothing was."""
        return self.result.routing or {}

    @property
    def kv_statistics(self) -> dict[str, Any]:
        """Norms and cosines of keys and values by depth; empty where they were not measured."""
        return self.result.kv_statistics or {}

    @cached_property
    def few_shot(self) -> dict[str, float]:
        """Accuracies in % by benchmark, and `avg`; empty where it was not evaluated."""
        try:
            found = RunFolder(self.folder).evaluation(PAPER)
        except UserError:
            found = None
        return {} if found is None else found.scores

    @property
    def size(self) -> str:
        """Name of the base size."""
        return self.result.size

    @property
    def params(self) -> float:
        """Unique parameters without embeddings."""
        return number(self.result.n_params_nonembedding)

    @property
    def budget(self) -> float:
        """FLOPs under the run's convention."""
        return number(self.result.budget)

    @property
    def tokens(self) -> float:
        """Training tokens."""
        return number(self.result.tokens)

    @property
    def unique_layers(self) -> int:
        """Layers with parameters of their own."""
        return self.result.unique_layers or 0


@dataclass(frozen=True)
class StudyRuns:
    """A study by name, and its runs that ended; `path` is what `load_points` takes."""

    name: str
    path: Path
    runs: tuple[Run, ...]
    n_planned: int


def find_studies(points: Path, loss: str) -> list[StudyRuns]:
    """The study at `points`; or, for a run store, the studies beside it, newest first, and the
    store itself last. Empty for a CSV.

    Raises AnalysisError where `points` does not exist or holds no finished run.
    """
    studies = _all_studies(points, loss)
    if points.is_dir() and not any(study.runs for study in studies):
        raise AnalysisError(
            f"{points} holds no finished run (a folder with a result.json): train some, or draw "
            "the published numbers with --source paper."
        )
    return studies


def _all_studies(points: Path, loss: str) -> list[StudyRuns]:
    if not points.exists():
        raise AnalysisError(
            f"POINTS {str(points)!r} does not exist: give a CSV file, a run store (runs/) or a "
            "study folder (studies/<name>/)."
        )
    if points.is_file():
        return []
    if StudyFolder(points).plan_file.is_file():
        return [_study(points, loss)]
    studies = study_folders(points.resolve().parent / "studies")
    plans = [study.plan_file for study in studies]
    newest = sorted(plans, key=lambda plan: plan.stat().st_mtime, reverse=True)
    names = sorted(folder.name for folder in points.iterdir() if folder.is_dir())
    everything = _runs(points, [name for name in names if not is_trunk(name)], loss)
    store = StudyRuns("", points, tuple(everything), len(everything))
    return [*(study for plan in newest if (study := _beside(plan.parent, loss))), store]


def _beside(folder: Path, loss: str) -> StudyRuns | None:
    """A study that happens to stand beside the store: one that cannot be read feeds nothing."""
    try:
        return _study(folder, loss)
    except AnalysisError:
        return None


def _study(folder: Path, loss: str) -> StudyRuns:
    chosen = read_study(folder)
    runs = _runs(chosen.runs_dir, chosen.run_ids, loss)
    return StudyRuns(chosen.plan.study or folder.name, folder, tuple(runs), len(chosen.run_ids))


def _runs(store: Path, names: list[str], loss: str) -> list[Run]:
    folders = [RunFolder(store / name) for name in names]
    found = [(folder, _result(folder)) for folder in folders]
    return [Run(result, folder.path, loss) for folder, result in found if result is not None]


def _result(folder: RunFolder) -> Result | None:
    """None also where it is damaged: the points say so."""
    try:
        result = result_of(folder.result_file)
    except DamagedFile:
        return None
    if result is not None:
        need(result, folder.result_file, *NEEDED)
    return result


def feeding(
    studies: list[StudyRuns],
    name: str,
    has: Callable[[tuple[Run, ...]], bool],
    is_about: Callable[[tuple[Run, ...]], bool],
) -> StudyRuns | None:
    """The study that feeds a figure: one called `name` (or `name` and more, as in `sharing_toy`)
    that `has` a run for it, else the first whose runs are about the same."""
    named = [study for study in studies if study.name.startswith(name) and has(study.runs)]
    others = (study for study in studies if has(study.runs) and is_about(study.runs))
    return named[0] if named else next(others, None)
