"""What a study is doing, from the ledger alone: a table that is printed once or live."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mor.config import UserError
from sweeps.ledger import Ledger
from sweeps.tables import duration, share
from sweeps.tasks import Task, read_tasks

COLOURS = {"done": "green", "running": "cyan", "failed": "red", "diverged": "red"}


@dataclass(frozen=True)
class Row:
    """One run or trunk as the table shows it."""

    name: str
    state: str
    spent: float | None  # FLOPs
    target: float
    loss: float | None
    tokens_per_s: float | None
    flops_per_s: float | None
    error: str | None


class StudyView:
    """Rows and totals of a study's plan, read again at each call."""

    def __init__(self, plan_file: Path, ledger: Ledger) -> None:
        self.study = json.loads(plan_file.read_text())["study"]
        self.tasks = read_tasks(plan_file, ledger)
        self.ledger = ledger

    def rows(self) -> list[Row]:
        return [self._row(task) for task in self.tasks if not task.is_segment]

    def active_segments(self) -> list[Row]:
        """Trunk segments in training: the runs that wait for them are not idle."""
        rows = []
        for task in self.tasks:
            if not task.is_segment or task.finished(self.ledger):
                continue
            status = task.folder.status() or {}
            if status.get("task_id") == task.task_id and task.claimed():
                rows.append(_from_status(task, status, "running"))
        return rows

    def _row(self, task: Task) -> Row:
        result = task.folder.result()
        if result is not None:
            loss = result["loss"].get("val_nll_causal")
            speed = result["throughput"]
            return Row(
                task.task_id,
                str(result["status"]),
                result["flops"]["spent"],
                task.config_values["budget"],
                loss,
                speed["tokens_per_s"],
                speed["flops_per_s"],
                result.get("error"),
            )
        status = task.folder.status()
        state = self.ledger.unfinished_state(task.folder.run_id, status)
        trunk = task.trunk(self.ledger)
        if state == "planned" and trunk is not None:
            of_trunk = trunk.status() or {}
            if of_trunk.get("state") in ("failed", "diverged"):
                return _from_status(task, of_trunk, str(of_trunk["state"]))
        return _from_status(task, status or {}, state)

    def remaining_hours(self, workers: int) -> float | None:
        """ETA of the study in hours, for `workers` runs at a time.

        What is left of each task is priced at the speed that its model and size has shown, or at
        the mean of those that have shown one; None before any has.
        """
        speeds = self._speeds()
        if not speeds:
            return None
        mean = statistics.harmonic_mean(list(speeds.values()))
        seconds = sum(
            task.exact_flops * (1 - self._progress(task)) / speeds.get(_shape(task), mean)
            for task in self.tasks
        )
        return seconds / max(1, workers) / 3600

    def _speeds(self) -> dict[tuple[str, str], float]:
        """Exact FLOP/s of each (model, size), by its newest status."""
        found = {}
        for task in self.tasks:
            speed = (task.folder.status() or {}).get("flops_per_s")
            if speed:
                found[_shape(task)] = float(speed)
        return found

    def _progress(self, task: Task) -> float:
        if task.finished(self.ledger):
            return 1.0
        status = task.folder.status() or {}
        if status.get("task_id") != task.task_id or not status.get("spent"):
            return 0.0
        begin = task.target if task.depends_on and not task.is_segment else 0.0
        through = (float(status["spent"]) - begin) / (float(status["target"]) - begin)
        return min(1.0, max(0.0, through))


def _shape(task: Task) -> tuple[str, str]:
    return task.config_values["model"]["name"], task.config_values["size"]["name"]


def _from_status(task: Task, status: dict[str, Any], state: str) -> Row:
    own = status.get("task_id") == task.task_id
    return Row(
        task.task_id,
        state,
        status.get("spent") if own else None,
        float(status.get("target", task.config_values["budget"])),
        status.get("loss"),
        status.get("tokens_per_s"),
        status.get("flops_per_s"),
        status.get("error") if state in ("failed", "diverged") else None,
    )


def study_table(
    view: StudyView, workers: int | None = None, hide_waiting: bool = False
) -> RenderableType:
    """State, share of the budget spent, loss, speed; and for the study what is done and the ETA.

    `workers` is how many run at a time; by default, as many as are running now.
    """
    rows, segments = view.rows(), view.active_segments()
    if workers is None:
        workers = len(segments) + sum(row.state == "running" for row in rows)
    table = Table(title=f"study {view.study}", title_justify="left", expand=False)
    table.add_column("run or trunk segment", no_wrap=True)
    table.add_column("state")
    for heading in ("spent", "loss (nats)", "tokens/s"):
        table.add_column(heading, justify="right")
    shown = [*segments, *rows]
    if hide_waiting:
        shown = [row for row in shown if row.state != "planned"]
    for row in shown:
        table.add_row(
            row.name,
            Text(row.state, style=COLOURS.get(row.state, "")),
            share(row.spent, row.target),
            "-" if row.loss is None else f"{row.loss:.4f}",
            "-" if not row.tokens_per_s else f"{row.tokens_per_s:,.0f}",
        )
    done = sum(row.state == "done" for row in rows)
    hours = view.remaining_hours(workers)
    eta = "ETA -" if hours is None else f"ETA {duration(hours)}"
    counts = ", ".join(
        f"{sum(r.state == s for r in rows)} {s}" for s in sorted({r.state for r in rows})
    )
    bar = ProgressBar(total=max(1, len(rows)), completed=done, width=40)
    return Group(table, bar, Text(f"{done} of {len(rows)} runs done ({counts}); {eta}"))


def study_plan_file(studies_dir: Path, study: str) -> Path:
    """Where the newest plan of a study lies. Raises UserError where there is none."""
    path = studies_dir / study / "plan.json"
    if not path.exists():
        known = sorted(p.parent.name for p in studies_dir.glob("*/plan.json"))
        instead = "known studies: " + ", ".join(known) if known else "no study was launched yet"
        raise UserError(f"study {study}: no plan in {path.parent}; {instead}")
    return path
