"""What a study is doing: each task as the ledger has it, and as the backend that holds it says.

One look reads each file once and asks for the queue once; the history of jobs is asked for, once,
only about attempts that have ended without saying why.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ledger.attempts import Attempt, AttemptLog, jobs_of, learnt, unsettled
from ledger.ids import folder_of
from ledger.plan_file import LaunchFolder, PlanFile, read_plan, study_of
from ledger.result import Result
from ledger.store import Ledger
from sweeps import backends
from sweeps.backends.base import BackendSilent, QueuedJob
from sweeps.backends.submitted import Element, by_task, elements
from sweeps.tasks import Kind, Task, tasks_of

OPEN = ("planned", "pending", "running", "preempted")  # these may still go on by themselves
BAD = ("failed", "diverged", "disk full", "out of memory")
ENOUGH_STEPS = 100  # from here on a speed is believed
NO_ACCOUNTING = (
    "the scheduler keeps no accounting here: why jobs ended is not known, and a job that ended "
    "without reporting a cause is shown as killed"
)


@dataclass(frozen=True)
class Row:
    """A run or trunk segment as it is shown."""

    name: str
    state: str
    spent: float | None  # FLOPs
    target: float
    loss: float | None  # nats per token: of the validation, while it runs of the newest batch
    bits_per_byte: float | None  # the same loss
    tokens_per_s: float | None
    flops_per_s: float | None
    mfu: float | None
    eta_hours: float | None  # of this task, while it runs
    attempts: int
    last_cause: str | None  # how the attempt before this moment ended
    device_hours: float
    on_gpu: bool
    node: str | None
    job_id: str | None
    reason: str | None  # why it waits, in the scheduler's own terms
    error: str | None
    is_segment: bool
    trunk: str | None  # that it is part of, or branches off


@dataclass(frozen=True)
class Cost:
    """Device-hours of a study."""

    planned: float  # as the plan has priced it
    unit: str  # of `planned`
    corrected: float | None  # at the measured speeds, where there are any
    measured: int  # (model, size) shapes with a measured speed
    shapes: int
    gpu_hours: float  # held so far
    core_hours: float


@dataclass
class Look:
    """A study at one moment."""

    study: str
    rows: list[Row]  # runs
    segments: list[Row]  # trunk segments that are not done
    evaluations: list[Row]  # evaluations that are not done
    data: list[Row]  # preparations that are not done; counted in tokens
    cost: Cost
    eta_hours: float | None  # of the study, while anything runs
    notes: list[str] = field(default_factory=list)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)  # by task, of those begun

    def counts(self) -> dict[str, int]:
        states = [row.state for row in self.rows]
        return {state: states.count(state) for state in sorted(set(states))}


@dataclass(frozen=True)
class _Seen:
    """What was read of one task."""

    task: Task
    status: dict[str, Any] | None  # of its folder, whichever task wrote it
    result: Result | None
    attempts: list[Attempt]  # at this task
    living: bool  # a live process holds its folder
    done: bool

    @property
    def own(self) -> dict[str, Any]:
        """The status, where this task wrote it."""
        status = self.status or {}
        return status if status.get("task_id") == self.task.task_id else {}

    @property
    def running(self) -> bool:
        return self.living and self.own.get("state") == "running" and not self.done


class StudyView:
    """A study's plan, looked at again and again."""

    def __init__(
        self,
        plan_file: Path,
        ledger: Ledger,
        plan: PlanFile | None = None,
        launch_id: str | None = None,
    ) -> None:
        """`plan`: what the file holds, where it is known. `launch_id`: of the launch that looks, in
        which nothing has failed that only earlier ones failed at."""
        self.plan = read_plan(plan_file) if plan is None else plan
        self.study = self.plan.study
        self.tasks = tasks_of(self.plan, ledger)
        self.ledger = ledger
        self.folder = study_of(plan_file)
        self.launch_id = launch_id

    def rows(self) -> list[Row]:
        return self.look().rows

    def look(self, workers: int | None = None) -> Look:
        """Read everything again. `workers`: tasks at a time, by default as many as run now."""
        notes: list[str] = []
        seen = [self._see(task) for task in self.tasks]
        held = by_task(elements(self.folder))
        queued = self._queue(seen, held, notes)
        if queued is not None:
            seen = [_believed(one, queued) for one in seen]
        queued = queued or {}
        seen = self._settle(seen, notes)
        if self.launch_id is not None:
            seen = [_tried_again(one, self.launch_id) for one in seen]
        cancelled = self._cancelled(held)
        trunk_ends = {s.task.folder.run_id: s for s in seen if s.task.is_segment}
        rows: dict[Kind, list[Row]] = {kind: [] for kind in Kind}
        for one in seen:
            if one.done and not one.task.is_run:
                continue
            mine = held.get(one.task.task_id, [])
            job = next((queued[e.job_id] for e in mine if e.job_id in queued), None)
            state = self._state(one, job, cancelled, trunk_ends)
            rows[one.task.kind].append(_row(one, state, job, mine))
        return Look(
            self.study,
            rows[Kind.RUN],
            rows[Kind.SEGMENT],
            [row for row in rows[Kind.EVALUATION] if row.state != "diverged"],
            rows[Kind.DATA],
            self._cost(seen),
            _remaining_hours(seen, sum(s.running for s in seen) if workers is None else workers),
            notes,
            {one.task.task_id: one.attempts for one in seen if one.attempts},
        )

    # -- reading --------------------------------------------------------------------------------

    def _see(self, task: Task) -> _Seen:
        result = self.ledger.result(task.folder.run_id) if task.is_run else None
        done = result is not None if task.is_run else task.finished(self.ledger)
        status = task.folder.status()
        attempts = AttemptLog(task.folder.path).read() if status else []
        living = bool(status) and not done and task.claimed(self.ledger)
        mine = [a for a in attempts if a.task_id == task.task_id]
        return _Seen(task, status, result, mine, living, done)

    def _queue(
        self, seen: list[_Seen], held: dict[str, list[Element]], notes: list[str]
    ) -> dict[str, QueuedJob] | None:
        ids = {e.job_id for s in seen if not s.done for e in held.get(s.task.task_id, [])}
        ids |= {s.attempts[-1].job_id or "" for s in seen if s.living and s.attempts} - {""}
        try:
            return backends.jobs(ids)
        except BackendSilent as silent:
            notes.append(f"Slurm does not answer ({silent}): what waits in it is not known")
            return None

    def _settle(self, seen: list[_Seen], notes: list[str]) -> list[_Seen]:
        """Find out how attempts ended that did not say; keeps it in their folders, where they can
        be written."""
        waiting = {s.task.task_id: unsettled(s.attempts, s.running) for s in seen if s.attempts}
        jobs = jobs_of(a for open_ones in waiting.values() for a in open_ones)
        known = backends.history(jobs)
        if known is None:
            notes.append(NO_ACCOUNTING)
        found = []
        for one in seen:
            if waiting.get(one.task.task_id):
                log = AttemptLog(one.task.folder.path)
                learn = one.attempts, one.running, one.own.get("heartbeat"), known
                try:
                    ends = log.settle(*learn)
                except OSError:  # a store that may only be read, or is full
                    ends = learnt(*learn)
                one = replace(one, attempts=ends)
            found.append(one)
        return found

    def _cancelled(self, held: dict[str, list[Element]]) -> set[str]:
        """Tasks that their newest launch was asked to leave alone."""
        launches = self.folder.launches()
        named: dict[str, LaunchFolder] = {}
        for launch in launches:
            named.update(dict.fromkeys(launch.cancelled(), launch))
        return {
            task
            for task, launch in named.items()
            if launch == launches[-1] or (held.get(task) and held[task][0].launch == launch)
        }

    # -- what it means --------------------------------------------------------------------------

    def _state(
        self, one: _Seen, job: QueuedJob | None, cancelled: set[str], trunks: dict[str, _Seen]
    ) -> str:
        if one.done:
            return one.result.status if one.result else "done"
        if one.running:
            return "running"
        last = one.attempts[-1].cause if one.attempts else None
        if job is not None and one.task.task_id not in cancelled:
            return "preempted" if last == "preempted" and job.waiting else "pending"
        state = one.own.get("state")
        if state in ("failed", "diverged"):
            return last if last in BAD else str(state)
        if one.task.task_id in cancelled:
            return "cancelled"
        if last is not None and last not in ("finished", "lost claim"):
            return last
        if state in ("running", "stopped"):
            return "stopped" if state == "stopped" else "killed"
        trunk = trunks.get(folder_of(one.task.depends_on[0])) if one.task.depends_on else None
        of_trunk = (trunk.status or {}).get("state") if trunk and one.task.is_run else None
        return str(of_trunk) if of_trunk in ("failed", "diverged") else "planned"

    def remaining_hours(self, workers: int) -> float | None:
        """ETA of the study in hours, for `workers` runs at a time; None before any has a speed."""
        return _remaining_hours([self._see(task) for task in self.tasks], workers)

    def _cost(self, seen: list[_Seen]) -> Cost:
        speeds = _speeds(seen, ENOUGH_STEPS)
        planned = {task.task_id: task.gpu_hours for task in self.tasks}
        corrected = 0.0
        for s in seen:
            task = s.task
            if _shape(task) in speeds:
                speed, devices = speeds[_shape(task)]
                flops = task.exact_flops + task.validation_flops
                corrected += flops / speed * devices / 3600
            else:
                corrected += planned.get(task.task_id, 0.0)
        now = time.time()
        held = [(a.on_gpu, a.hours(now)) for s in seen for a in s.attempts]
        return Cost(
            sum(planned.values()),
            self.plan.unit,
            corrected if speeds else None,
            len(speeds),
            len({_shape(s.task) for s in seen if not s.task.is_data}),
            sum(hours for on_gpu, hours in held if on_gpu),
            sum(hours for on_gpu, hours in held if not on_gpu),
        )


def _believed(s: _Seen, queued: dict[str, QueuedJob]) -> _Seen:
    """A scheduler knows of a dead node or a requeue before a dead worker's claim is stale."""
    job_id = s.attempts[-1].job_id if s.attempts else None
    if not s.living or job_id is None or not backends.can_ask(job_id):
        return s
    alive = job_id in queued and not (queued[job_id].waiting or queued[job_id].held)
    return replace(s, living=alive)


def _tried_again(s: _Seen, launch_id: str) -> _Seen:
    """Without the failure of an earlier launch."""
    status, attempts = s.status or {}, s.attempts
    if status.get("state") in ("failed", "diverged") and status.get("launch_id") != launch_id:
        status = {**status, "state": None}
    if attempts and attempts[-1].cause in BAD and attempts[-1].launch_id != launch_id:
        attempts = [*attempts[:-1], replace(attempts[-1], cause=None)]
    return replace(s, status=status, attempts=attempts)


def _shape(task: Task) -> tuple[str, str]:
    return task.config_values["model"]["name"], task.config_values["size"]["name"]


def _speeds(seen: list[_Seen], at_least: int) -> dict[tuple[str, str], tuple[float, int]]:
    """Exact FLOP/s of each (model, size) and the devices that gave it: the median over its tasks
    that have made `at_least` steps."""
    found: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for s in seen:
        status = {} if s.task.is_evaluation or s.task.is_data else s.status or {}
        if status.get("flops_per_s") and status.get("step", 0) >= at_least:
            devices = s.attempts[-1].devices if s.attempts else 1
            found.setdefault(_shape(s.task), []).append((float(status["flops_per_s"]), devices))
    return {
        shape: sorted(speeds, key=lambda pair: pair[0] / pair[1])[len(speeds) // 2]
        for shape, speeds in found.items()
    }


def _remaining_hours(seen: list[_Seen], workers: int) -> float | None:
    """What is left of each task, priced at the speed that its model and size has shown, or else at
    that of the size nearest to it, of its own model where it is as near; None before any has shown
    one, or where nothing runs."""
    speeds = {shape: speed for shape, (speed, _) in _speeds(seen, at_least=1).items()}
    if not speeds or not workers:
        return None
    sizes = {_shape(s.task): _weights(s.task) for s in seen}
    left: dict[tuple[str, str], float] = {}
    for s in seen:
        shape = _shape(s.task)
        left[shape] = left.get(shape, 0.0) + s.task.exact_flops * (1 - _progress(s))
    seconds = 0.0
    for shape, flops in left.items():
        apart = {other: abs(math.log(sizes[other] / sizes[shape])) for other in speeds}
        like = min(speeds, key=lambda other: (apart[other], other != shape, other[0] != shape[0]))
        seconds += flops / speeds[like]
    return seconds / workers / 3600


def _weights(task: Task) -> float:
    """In proportion to the weights of its layers."""
    size = task.config_values["size"]
    return float(size["n_layers"] * size["d_model"] ** 2)


def _progress(s: _Seen) -> float:
    if s.done:
        return 1.0
    if not s.own.get("spent"):
        return 0.0
    begin = s.task.target if s.task.depends_on and s.task.is_run else 0.0
    through = (float(s.own["spent"]) - begin) / (float(s.own["target"]) - begin)
    return min(1.0, max(0.0, through))


def _row(s: _Seen, state: str, job: QueuedJob | None, held: list[Element]) -> Row:
    last = s.attempts[-1] if s.attempts else None
    result, own = s.result, s.own
    speed = result.throughput.to_dict() if result else own
    flops_per_s = speed.get("flops_per_s")
    eta = None
    if state == "running" and flops_per_s:
        eta = s.task.exact_flops * (1 - _progress(s)) / float(flops_per_s) / 3600
    ended = [a.cause for a in s.attempts if a.cause]
    now = time.time()
    return Row(
        name=s.task.task_id,
        state=state,
        spent=result.flops.spent if result else own.get("spent"),
        target=s.task.goal,
        loss=result.validation_loss() if result else own.get("loss"),
        bits_per_byte=result.bits_per_byte() if result else own.get("bits_per_byte"),
        tokens_per_s=speed.get("tokens_per_s"),
        flops_per_s=flops_per_s,
        mfu=speed.get("mfu"),
        eta_hours=eta,
        attempts=len(s.attempts),
        last_cause=ended[-1] if ended else None,
        device_hours=sum(a.hours(now) for a in s.attempts),
        on_gpu=bool(last and last.on_gpu),
        node=(job.node if job else None) or (last.host if last else None),
        job_id=job.job_id if job else (last.job_id if last else None) or _first(held),
        reason=job.reason if job and job.waiting else None,
        error=(result.error if result else None) or (own.get("error") if state in BAD else None),
        is_segment=s.task.is_segment,
        trunk=folder_of(s.task.depends_on[0]) if s.task.depends_on and not s.task.is_data else None,
    )


def _first(held: list[Element]) -> str | None:
    return held[0].job_id if held else None
