"""What a study asked for, and what it cost against its plan."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.formatting import compute, listing, plural
from analysis.points.run_store import read_study
from analysis.report.records import Record, read
from ledger.attempts import Attempt, AttemptLog
from ledger.ids import folder_of
from ledger.plan_file import PlanFile, RunEntry, SegmentEntry, hours_unit
from ledger.result import FINISHED


@dataclass(frozen=True)
class Spent:
    """One line of plan against spent: all runs of a model, or the whole study.

    FLOPs are exact ones (forward and backward of every matmul), spent by whichever study trained
    them. Hours are device hours: planned at the plan's speed, spent at the speed that the runs
    measured, and at most what the attempts at these tasks held.
    """

    name: str
    runs: int
    done: int
    planned_flops: float
    spent_flops: float
    planned_hours: float
    spent_hours: float | None


@dataclass(frozen=True)
class StudyFacts:
    """The study by its plan and its run folders."""

    name: str
    asked: str
    when: str
    where: str
    states: dict[str, int]
    unfinished: list[Record]
    spent: list[Spent]
    unit: str
    held: dict[str, float]  # by unit, of all attempts from start to end; empty: not recorded


def study_facts(folder: Path, known: Mapping[str, Record]) -> StudyFacts:
    """Facts of `studies/<name>/`; `known` are records that were read before, by run id.

    Raises AnalysisError where its plan cannot be read.
    """
    study = read_study(folder)
    plan = study.plan
    runs = {run.run_id: run for run in plan.runs}
    records = {name: known.get(name) or read(study.runs_dir / name) for name in study.run_ids}
    states: dict[str, int] = {}
    for record in records.values():
        states[record.state] = states.get(record.state, 0) + 1
    found = list(records.values())
    attempts = _attempts(study.runs_dir, plan)
    return StudyFacts(
        name=plan.study or folder.name,
        asked=_asked(runs.values()),
        when=_when(folder, found),
        where=listing(sorted({r.device for r in found if r.device})) or "not recorded by the runs",
        states=states,
        unfinished=[record for record in found if record.state not in FINISHED],
        spent=_spent(plan, runs, records, attempts),
        unit=hours_unit(plan.gpu),
        held=_held(attempts),
    )


def _attempts(store: Path, plan: PlanFile) -> dict[str, list[Attempt]]:
    """The attempts at each task of the plan; a task whose folder has kept none at any task is left
    out. A trunk's folder has those of other studies and launches, too."""
    tasks = [run.run_id for run in plan.runs]
    tasks += [segment.segment_id for segment in plan.segments]
    tasks += [one.evaluation_id for one in plan.evaluations or ()]
    tasks += [one.data_id for one in plan.data or ()]
    logs = {name: AttemptLog(store / name).read() for name in {folder_of(task) for task in tasks}}
    return {
        task: [attempt for attempt in log if attempt.task_id == task]
        for task in dict.fromkeys(tasks)
        if (log := logs[folder_of(task)])
    }


def _held(attempts: Mapping[str, list[Attempt]]) -> dict[str, float]:
    """Device-hours of the attempts that have ended, by unit."""
    held: dict[str, float] = {}
    for attempt in (one for found in attempts.values() for one in found):
        unit = "GPU-hours" if attempt.on_gpu else "core-hours"
        if attempt.ended is not None:
            held[unit] = held.get(unit, 0.0) + attempt.hours(attempt.ended)
    return held


def _asked(runs: Iterable[RunEntry]) -> str:
    rows = list(runs)
    axes = []
    for key, noun in (("model", "model"), ("size", "size"), ("budget", "budget"), ("seed", "seed")):
        values = list(dict.fromkeys(getattr(row, key) for row in rows if row.has(key)))
        shown = [compute(v) if key == "budget" else str(v) for v in values]
        if values:
            axes.append(f"{plural(len(values), noun)} ({listing(shown, 8)})")
    return f"{plural(len(rows), 'run')}: " + ", ".join(axes) if axes else plural(len(rows), "run")


def _when(folder: Path, records: list[Record]) -> str:
    launches = sorted(p.name for p in (folder / "launches").glob("*-*") if p.is_dir())
    ends = sorted(record.finished for record in records if record.finished)
    said = []
    if launches:
        first = launches[0]
        stamp = f"{first[:4]}-{first[4:6]}-{first[6:8]} {first[9:11]}:{first[11:13]} UTC"
        times = "launched" if len(launches) == 1 else f"launched {len(launches)} times, first"
        said.append(f"{times} {stamp}")
    if ends:
        said.append(f"results from {_minute(ends[0])} to {_minute(ends[-1])} UTC")
    return "; ".join(said) or "not recorded by the runs"


def _minute(stamp: str) -> str:
    return stamp[:16].replace("T", " ")


@dataclass(frozen=True)
class _Piece:
    """What is trained in one go: a run's own part (its cool-down), or a segment of a trunk."""

    task_id: str
    model: str
    size: str
    exact_flops: float
    planned_hours: float
    trained: bool
    spent_flops: float
    measured: float | None = None  # its own exact FLOPs a second of one device


def _spent(
    plan: PlanFile,
    runs: dict[str, RunEntry],
    records: dict[str, Record],
    attempts: Mapping[str, list[Attempt]],
) -> list[Spent]:
    """A line for each model and one for all; none where the plan holds no costs."""
    if not runs or not all(run.flops and run.has("gpu_hours") for run in runs.values()):
        return []
    pieces = _pieces(plan, runs, records, attempts)
    hours = _step_hours(pieces, attempts)
    models = list(dict.fromkeys(run.model for run in runs.values()))
    lines = [_line(name, [name], pieces, hours, runs, records) for name in models]
    if len(lines) == 1:
        return lines
    return [*lines, _line("all", models, pieces, hours, runs, records)]


def _pieces(
    plan: PlanFile,
    runs: dict[str, RunEntry],
    records: dict[str, Record],
    attempts: Mapping[str, list[Attempt]],
) -> list[_Piece]:
    segments = {segment.segment_id: segment for segment in plan.segments}
    owner: dict[str, RunEntry] = {}  # a run that needs the segment, a finished one first
    pieces = []
    for name, run in runs.items():
        exact, record = run.flops["exact"], records[name]
        own = exact if run.own_exact_flops is None else run.own_exact_flops
        ended = record.state in FINISHED
        counted = record.flops.get("exact", exact) * own / exact
        hours = run.gpu_hours * own / exact if run.own_hours is None else run.own_hours
        speed = record.exact_flops_per_s
        pace = speed / record.devices if speed else None
        pieces.append(_Piece(name, run.model, run.size, own, hours, ended, counted, pace))
        for above in _ancestors(run.depends_on, segments):
            if ended or above not in owner:
                owner[above] = run
    for name, run in owner.items():
        flops, hours = segments[name].exact_flops, segments[name].gpu_hours
        trained = records[run.run_id].state in FINISHED
        pieces.append(_Piece(name, run.model, run.size, flops, hours, trained, flops * trained))
    return pieces


def _ancestors(names: Sequence[str], segments: dict[str, SegmentEntry]) -> list[str]:
    found: list[str] = []
    waiting = [name for name in names if name in segments]
    while waiting:
        name = waiting.pop()
        found.append(name)
        waiting.extend(n for n in segments[name].depends_on if n in segments)
    return found


def _step_hours(
    pieces: Iterable[_Piece], attempts: Mapping[str, list[Attempt]]
) -> dict[str, float | None]:
    """Device-hours of the steps of each piece that is trained; None: no speed is known.

    By its own speed, else by that of the measured pieces of its model and size together (their
    FLOPs over their seconds), and at most what the attempts at it held: a segment may go on from
    where another study has trained its trunk to.
    """
    trained = [piece for piece in pieces if piece.trained]
    pooled: dict[tuple[str, str], tuple[float, float]] = {}
    for piece in trained:
        if piece.measured:
            flops, seconds = pooled.get((piece.model, piece.size), (0.0, 0.0))
            more = piece.spent_flops / piece.measured
            pooled[piece.model, piece.size] = flops + piece.spent_flops, seconds + more
    hours: dict[str, float | None] = {}
    for piece in trained:
        flops, seconds = pooled.get((piece.model, piece.size), (0.0, 0.0))
        pace = piece.measured or (flops / seconds if seconds else None)
        steps = piece.spent_flops / pace / 3600 if pace else None
        mine = attempts.get(piece.task_id)
        if steps is not None and mine is not None and all(a.ended is not None for a in mine):
            steps = min(steps, sum(a.hours(a.ended) for a in mine if a.ended is not None))
        hours[piece.task_id] = steps
    return hours


def _line(
    name: str,
    models: list[str],
    pieces: list[_Piece],
    hours: Mapping[str, float | None],
    runs: dict[str, RunEntry],
    records: dict[str, Record],
) -> Spent:
    mine = [piece for piece in pieces if piece.model in models]
    trained = [piece for piece in mine if piece.trained]
    steps = [hours[piece.task_id] for piece in trained]
    known = [one for one in steps if one is not None]
    ids = [run_id for run_id, run in runs.items() if run.model in models]
    return Spent(
        name,
        runs=len(ids),
        done=sum(records[run_id].state in FINISHED for run_id in ids),
        planned_flops=sum(piece.exact_flops for piece in mine),
        spent_flops=sum(piece.spent_flops for piece in trained),
        planned_hours=sum(piece.planned_hours for piece in mine),
        spent_hours=sum(known) if len(known) == len(steps) else None,
    )
