"""`plan.json`: what a study or a launch is to do, and the folders that hold it.

`studies/<name>/plan.json` has every run that was ever launched under the study's name,
`studies/<name>/launches/<launch_id>/plan.json` those of one launch, with their configurations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.damage import read_whole, write_digest
from ledger.errors import DamagedFile, MalformedFile, UserError
from ledger.files import check_schema, json_object, write_json
from ledger.part import OPTIONAL, Part, WrongValue

PLAN_SCHEMA = 1
PLAN = "plan.json"


def hours_unit(gpu: str) -> str:
    """The unit of hours planned for a device, as in "h100 GPU-hours"."""
    return "core-hours" if gpu == "cpu" else f"{gpu} GPU-hours".strip()


@dataclass(frozen=True, kw_only=True)
class RunEntry(Part):
    """A run of a plan. `extra` has its FLOPs, parameters and steps as people read them."""

    run_id: str
    label: str | None = None  # the variant of its study
    model: str = ""
    size: str = ""
    budget: float | None = None  # FLOPs under `convention`
    seed: int | None = None
    convention: str | None = None
    n_params: int | None = None
    n_params_nonembedding: int | None = None
    unique_layers: int | None = None
    effective_layers: int | None = None
    tokens: int | None = None
    steps: int | None = None
    warmup_steps: int | None = None
    cooldown_steps: int | None = None
    stable_step: int | None = None
    flops: dict[str, float] = field(default_factory=dict)  # by convention, of the whole run
    gpu_hours: float = 0.0  # of the whole run, as if from scratch
    price: str | None = None  # measured | assumed
    status: str = "planned"
    trunk: str | None = None
    depends_on: tuple[str, ...] = ()
    lr: float | None = field(default=None, metadata=OPTIONAL)  # peak learning rate
    batch_size: int | None = field(default=None, metadata=OPTIONAL)  # sequences per step
    recipe: str | None = field(default=None, metadata=OPTIONAL)  # what gave both, if not typed
    data: str | None = field(default=None, metadata=OPTIONAL)  # the task that prepares its corpus
    config: dict[str, Any] | None = field(
        default=None, metadata=OPTIONAL
    )  # these are for workers only; first: the resolved configuration
    own_exact_flops: float | None = field(
        default=None, metadata=OPTIONAL
    )  # that the run itself trains
    branch_flops: float | None = field(
        default=None, metadata=OPTIONAL
    )  # at which its cool-down begins
    own_hours: float | None = field(default=None, metadata=OPTIONAL)  # its validations included
    validation_flops: float | None = field(default=None, metadata=OPTIONAL)  # exact, of its part

    @classmethod
    def read(cls, name: str, value: Any) -> Any:
        return tuple(value) if name == "depends_on" else value

    @property
    def own_gpu_hours(self) -> float:
        """Device-hours of the part that the run itself trains, and of its validations."""
        if self.own_hours is not None:
            return self.own_hours
        return self.gpu_hours * ((self.own_exact_flops or 0.0) / self.flops["exact"])


@dataclass(frozen=True, kw_only=True)
class SegmentEntry(Part):
    """A trunk segment of a plan."""

    segment_id: str
    trunk_id: str
    target_flops: float  # at its end
    steps: int
    exact_flops: float
    gpu_hours: float
    status: str  # planned | done
    depends_on: tuple[str, ...] = ()
    data: str | None = field(default=None, metadata=OPTIONAL)  # the task that prepares its corpus
    config: dict[str, Any] | None = field(
        default=None, metadata=OPTIONAL
    )  # of a run that branches off at its end
    validation_flops: float | None = field(default=None, metadata=OPTIONAL)  # exact

    @classmethod
    def read(cls, name: str, value: Any) -> Any:
        return tuple(value) if name == "depends_on" else value


@dataclass(frozen=True, kw_only=True)
class EvaluationEntry(Part):
    """The evaluation of a run on a task set, once the run is done."""

    evaluation_id: str
    run_id: str
    chain: str  # the run's trunk, or the run itself
    tasks: str  # a preset's name or a path
    fingerprint: str  # of the tasks, as they were planned
    exact_flops: float
    gpu_hours: float
    status: str  # planned | done
    config: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)  # of the run


@dataclass(frozen=True, kw_only=True)
class DataEntry(Part):
    """The preparation of a corpus up to what some runs read."""

    data_id: str
    name: str
    fingerprint: str
    tokens: int  # training tokens, from the beginning of the corpus
    val_tokens: int
    missing: int  # training tokens that were not there when it was planned
    core_hours: float
    status: str  # planned | done
    depends_on: tuple[str, ...] = ()
    config: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)  # of one of the runs

    @classmethod
    def read(cls, name: str, value: Any) -> Any:
        return tuple(value) if name == "depends_on" else value


@dataclass(frozen=True, kw_only=True)
class PlanFile(Part):
    """The plan of a study or of one launch."""

    schema: int = PLAN_SCHEMA
    study: str = ""
    gpu: str = ""  # the device that it is priced on
    runs: tuple[RunEntry, ...] = ()
    segments: tuple[SegmentEntry, ...] = ()
    evaluations: tuple[EvaluationEntry, ...] | None = field(default=None, metadata=OPTIONAL)
    data: tuple[DataEntry, ...] | None = field(default=None, metadata=OPTIONAL)
    totals: dict[str, Any] | None = field(
        default=None, metadata=OPTIONAL
    )  # of one launch; a study that grew has none
    # the run store
    runs_dir: str | None = field(default=None, metadata=OPTIONAL)

    @classmethod
    def read(cls, name: str, value: Any) -> Any:
        entries: dict[str, type[Part]] = {
            "runs": RunEntry,
            "segments": SegmentEntry,
            "evaluations": EvaluationEntry,
            "data": DataEntry,
        }
        if name not in entries or value is None:
            return value
        if strange := next((entry for entry in value if not isinstance(entry, dict)), None):
            raise WrongValue(f"{name!r} lists {json.dumps(strange)[:80]}, which is not an object")
        return tuple(entries[name].from_dict(entry) for entry in value)

    @property
    def unit(self) -> str:
        """What its hours are of."""
        return "core-hours" if self.gpu == "cpu" else "GPU-hours"

    def with_earlier(self, earlier: PlanFile) -> PlanFile:
        """This plan with the entries of an earlier one that it does not name; without totals."""
        runs = {run.run_id: run for run in (*earlier.runs, *self.runs)}
        segments = in_line({s.segment_id: s for s in (*earlier.segments, *self.segments)})
        every = (*(earlier.evaluations or ()), *(self.evaluations or ()))
        evaluations = {one.evaluation_id: one for one in every}
        data = {one.data_id: one for one in (*(earlier.data or ()), *(self.data or ()))}
        order = None if self.order is None else tuple(n for n in self.order if n != "totals")
        for name, entries in (("evaluations", evaluations), ("data", data)):
            if entries and order is not None and name not in order:
                order = (*order, name)
        return dataclasses.replace(
            self,
            runs=tuple(runs.values()),
            segments=tuple(segments.values()),
            evaluations=tuple(evaluations.values()) or None,
            data=tuple(data.values()) or None,
            totals=None,
            order=order,
        )


def read_plan(path: Path) -> PlanFile:
    """A plan file; of a study's that is damaged, the plans of its launches together. Raises as
    `read_whole_plan` does, where no launch has a plan either."""
    try:
        return read_whole_plan(path)
    except DamagedFile:
        plans = launch_plans(StudyFolder(path.parent))
        if not plans:
            raise
        return together(plans)


def read_whole_plan(path: Path) -> PlanFile:
    """A plan file as it was written. Raises UserError where it is missing, DamagedFile where it is
    not what was written, MalformedFile where it is not a plan, LedgerVersionError."""
    data = read_whole(path, digest_of(path))
    if data is None:
        raise UserError(f"{path}: there is no such plan; launch the study again")
    values = json_object(data, path)
    check_schema(values, PLAN_SCHEMA, path)
    try:
        plan = PlanFile.from_dict(values)
    except WrongValue as wrong:
        raise MalformedFile(f"{path}: not a plan ({wrong}); launch the study again") from None
    segments = in_line({segment.segment_id: segment for segment in plan.segments})
    return dataclasses.replace(plan, segments=tuple(segments.values()))


def in_line(segments: Mapping[str, SegmentEntry]) -> dict[str, SegmentEntry]:
    """Segments that begin where the one before them ends. What one launch has cut into two is one,
    from the trunk's beginning, in another launch's plan; a study counts each stretch once."""
    trunks: dict[str, list[SegmentEntry]] = {}
    for segment in segments.values():
        trunks.setdefault(segment.trunk_id, []).append(segment)
    found = dict(segments)
    for own in trunks.values():
        if len({segment.depends_on for segment in own}) == len(own):
            continue
        before: SegmentEntry | None = None
        reached = 0.0
        for segment in sorted(own, key=lambda segment: segment.target_flops):
            reach = _reach(segment, segments)
            share = (reach - reached) / (segment.exact_flops or 1.0)
            found[segment.segment_id] = dataclasses.replace(
                segment,
                steps=round(segment.steps * share),
                exact_flops=reach - reached,
                gpu_hours=segment.gpu_hours * share,
                validation_flops=segment.validation_flops and segment.validation_flops * share,
                depends_on=(before.segment_id,) if before else (),
            )
            before, reached = segment, reach
    return found


def _reach(segment: SegmentEntry, segments: Mapping[str, SegmentEntry]) -> float:
    """Exact FLOPs from the trunk's beginning to the end of a segment."""
    above = (segments[name] for name in segment.depends_on if name in segments)
    return segment.exact_flops + sum(_reach(one, segments) for one in above)


def launch_plans(study: StudyFolder) -> list[PlanFile]:
    """The plans of a study's launches, oldest first, those left out that cannot be read."""
    found = []
    for launch in study.launches():
        with contextlib.suppress(UserError):
            found.append(read_whole_plan(launch.plan_file))
    return found


def together(plans: Sequence[PlanFile]) -> PlanFile:
    """The newest plan, which is the last one, with the entries of the earlier ones."""
    return functools.reduce(PlanFile.with_earlier, reversed(plans))


def write_plan(path: Path, plan: PlanFile) -> None:
    digest_of(path).unlink(missing_ok=True)
    write_json(path, plan.to_dict())
    write_digest(path, digest_of(path))


def digest_of(plan_file: Path) -> Path:
    """The digest of a plan: one that was damaged or edited does not pass for it."""
    return plan_file.with_suffix(".digest")


@dataclass(frozen=True)
class LaunchFolder:
    """`studies/<name>/launches/<launch_id>/`: every file of one launch."""

    path: Path

    @property
    def launch_id(self) -> str:
        return self.path.name

    @property
    def study(self) -> StudyFolder:
        return StudyFolder(self.path.parents[1])

    @property
    def plan_file(self) -> Path:
        return self.path / PLAN

    @property
    def jobs_file(self) -> Path:
        """Which job was submitted for which tasks."""
        return self.path / "jobs.json"

    @property
    def cancelled_file(self) -> Path:
        return self.path / "cancelled.json"

    @property
    def workers(self) -> Path:
        """What the workers print."""
        return self.path / "workers"

    @property
    def code(self) -> Path:
        """The copy of the code that its jobs run."""
        return self.path / "code"

    def idle_file(self, job_id: str) -> Path:
        """How often a job was started and trained nothing."""
        return self.path / "idle" / f"{job_id}.json"

    def cancelled(self) -> frozenset[str]:
        """Tasks that this launch is to leave alone."""
        try:
            return frozenset(json.loads(self.cancelled_file.read_text())["tasks"])
        except (OSError, ValueError, KeyError, TypeError):
            return frozenset()

    def cancel(self, task_ids: Iterable[str]) -> None:
        """Note that a launch is to leave tasks alone: no worker takes one of them, and one that is
        training it checkpoints and stops. A later launch is free to take them."""
        tasks = self.cancelled() | set(task_ids)
        write_json(self.cancelled_file, {"tasks": sorted(tasks)})


@dataclass(frozen=True)
class StudyFolder:
    """`studies/<name>/`: every file of a study."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def plan_file(self) -> Path:
        return self.path / PLAN

    @property
    def lock_file(self) -> Path:
        """Held while the plan is changed."""
        return self.path / ".plan.lock"

    @property
    def settings_file(self) -> Path:
        """What is around the runs, as its newest launch set it."""
        return self.path / "settings.json"

    def launch(self, launch_id: str) -> LaunchFolder:
        return LaunchFolder(self.path / "launches" / launch_id)

    def launches(self) -> list[LaunchFolder]:
        """All launches, oldest first."""
        found = (path for path in (self.path / "launches").glob("*") if path.is_dir())
        return [LaunchFolder(path) for path in sorted(found)]


def study_folders(studies_dir: Path) -> list[StudyFolder]:
    """The studies that have a plan, by name."""
    return [StudyFolder(path.parent) for path in sorted(studies_dir.glob(f"*/{PLAN}"))]


def study_of(plan_file: Path) -> StudyFolder:
    """The study of a plan file: its own, or the one that a launch belongs to."""
    folder = plan_file.parent
    launched = folder.parent.name == "launches"
    return LaunchFolder(folder).study if launched else StudyFolder(folder)
