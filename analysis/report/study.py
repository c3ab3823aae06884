"""What a study asked for, and what it cost against its plan."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.formatting import compute, listing, plural
from analysis.points.run_store import read_study
from analysis.report.records import Record, read
from ledger.attempts import AttemptLog
from ledger.plan_file import PlanFile, RunEntry, SegmentEntry, hours_unit
from ledger.result import FINISHED


@dataclass(frozen=True)
class Spent:
    """One line of plan against spent: all runs of a model, or the whole study.

    FLOPs are exact ones (forward and backward of every matmul); hours are device hours: planned at
    the plan's speed, spent at the speed that the runs measured.
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
    held: float | None  # hours of all attempts, from start to end; None: not recorded


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
    return StudyFacts(
        name=plan.study or folder.name,
        asked=_asked(runs.values()),
        when=_when(folder, found),
        where=listing(sorted({r.device for r in found if r.device})) or "not recorded by the runs",
        states=states,
        unfinished=[record for record in found if record.state not in FINISHED],
        spent=_spent(plan, runs, records),
        unit=hours_unit(plan.gpu),
        held=_held(study.runs_dir, {*study.run_ids, *(s.trunk_id for s in plan.segments)}),
    )


def _held(store: Path, folders: Iterable[str]) -> float | None:
    """Device-hours of the attempts at these runs and trunks that have ended."""
    attempts = [a for name in folders for a in AttemptLog(store / name).read()]
    hours = [attempt.hours(attempt.ended) for attempt in attempts if attempt.ended is not None]
    return sum(hours) if hours else None


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

    model: str
    exact_flops: float
    planned_hours: float
    trained: bool
    spent_flops: float
    flops_per_s: float | None


def _spent(plan: PlanFile, runs: dict[str, RunEntry], records: dict[str, Record]) -> list[Spent]:
    """A line for each model and one for all; none where the plan holds no costs."""
    if not runs or not all(run.flops and run.has("gpu_hours") for run in runs.values()):
        return []
    pieces = _pieces(plan, runs, records)
    models = list(dict.fromkeys(run.model for run in runs.values()))
    lines = [_line(name, [name], pieces, runs, records) for name in models]
    return [*lines, _line("all", models, pieces, runs, records)] if len(lines) > 1 else lines


def _pieces(plan: PlanFile, runs: dict[str, RunEntry], records: dict[str, Record]) -> list[_Piece]:
    speed = _speeds(records.values())
    segments = {segment.segment_id: segment for segment in plan.segments}
    owner: dict[str, RunEntry] = {}  # a run that needs the segment, a finished one first
    pieces = []
    for name, run in runs.items():
        exact = run.flops["exact"]
        own = exact if run.own_exact_flops is None else run.own_exact_flops
        ended = records[name].state in FINISHED
        counted = records[name].flops.get("exact", exact) * own / exact
        pace = speed.get((run.model, run.size))
        hours = run.gpu_hours * own / exact if run.own_hours is None else run.own_hours
        pieces.append(_Piece(run.model, own, hours, ended, counted, pace))
        for above in _ancestors(run.depends_on, segments):
            if ended or above not in owner:
                owner[above] = run
    for segment_id, run in owner.items():
        segment, pace = segments[segment_id], speed.get((run.model, run.size))
        flops, ended = segment.exact_flops, records[run.run_id].state in FINISHED
        pieces.append(_Piece(run.model, flops, segment.gpu_hours, ended, flops, pace))
    return pieces


def _ancestors(names: Sequence[str], segments: dict[str, SegmentEntry]) -> list[str]:
    found: list[str] = []
    waiting = [name for name in names if name in segments]
    while waiting:
        name = waiting.pop()
        found.append(name)
        waiting.extend(n for n in segments[name].depends_on if n in segments)
    return found


def _line(
    name: str,
    models: list[str],
    pieces: list[_Piece],
    runs: dict[str, RunEntry],
    records: dict[str, Record],
) -> Spent:
    mine = [piece for piece in pieces if piece.model in models]
    trained = [piece for piece in mine if piece.trained]
    paces = [piece.flops_per_s for piece in trained]
    seconds = [piece.spent_flops / p for piece, p in zip(trained, paces, strict=True) if p]
    ids = [run_id for run_id, run in runs.items() if run.model in models]
    return Spent(
        name,
        runs=len(ids),
        done=sum(records[run_id].state in FINISHED for run_id in ids),
        planned_flops=sum(piece.exact_flops for piece in mine),
        spent_flops=sum(piece.spent_flops for piece in trained),
        planned_hours=sum(piece.planned_hours for piece in mine),
        spent_hours=sum(seconds) / 3600 if all(paces) else None,
    )


def _speeds(records: Iterable[Record]) -> dict[tuple[str, str], float]:
    """Median exact FLOP/s of each (model, size)."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in records:
        if record.exact_flops_per_s:
            found.setdefault((record.model, record.size), []).append(record.exact_flops_per_s)
    return {key: statistics.median(values) for key, values in found.items()}
