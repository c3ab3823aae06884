"""One self-contained HTML of a study while it runs, rewritten on each look."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from ledger.curves import Curve
from ledger.errors import UserError
from sweeps.board import COLUMNS, cost_text
from sweeps.page.chart import COLOURS, Panel, Series, panel
from sweeps.tables import duration
from sweeps.tasks import Task
from sweeps.watch import OPEN, Look, Row, StudyView

EVERY_S = 60.0  # seconds between two writings
SHOWN = 500  # rows of the table
FILE = "watch.html"
GOOD = ("done", "running", "finished")


class Page:
    """A study's page: what was read of the curves is kept between two writings."""

    def __init__(self, view: StudyView, file: Path) -> None:
        self._view, self._file = view, file
        self._curves: dict[str, Curve] = {}

    def write(self, look: Look, every_s: float = EVERY_S) -> None:
        """Draw a look at the study, whole or not at all. Raises UserError where it cannot be."""
        html = _template().render(self._content(look, every_s))
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(html)
            temporary.replace(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise UserError(
                f"--out {self._file}: cannot be written ({error.strerror}); name a file, as in "
                "--out page.html"
            ) from None

    def _content(self, look: Look, every_s: float) -> dict[str, Any]:
        rows = [*look.segments, *look.rows]
        now = datetime.datetime.now(datetime.UTC)
        sizes = dict.fromkeys(_size(task) for task in self._view.tasks)
        colours = {size: i % COLOURS for i, size in enumerate(sizes)}
        return {
            "study": look.study,
            "written": f"{now:%Y-%m-%d %H:%M:%S} UTC",
            "refresh": int(every_s) if any(row.state in OPEN for row in look.rows) else None,
            "counts": look.counts(),
            "total": len(look.rows),
            "eta": None if look.eta_hours is None else duration(look.eta_hours),
            "cost": cost_text(look.cost),
            "notes": look.notes,
            "panels": self._panels(look, colours),
            "sizes": colours,
            "headings": [column.heading for column in COLUMNS],
            "words": [column.words for column in COLUMNS],
            "rows": [
                (_tone(row), [column.cell(row) for column in COLUMNS]) for row in rows[:SHOWN]
            ],
            "more": max(0, len(rows) - SHOWN),
            "errors": [(row.name, row.error) for row in rows if row.error],
        }

    def _panels(self, look: Look, colours: dict[str, int]) -> list[Panel]:
        by_model: dict[str, list[Series]] = {}
        bits: dict[str, float] = {}
        ends = {row.name: row for row in look.rows}
        for task in self._folders():
            model = str(task.config_values.get("label") or task.config_values["model"]["name"])
            row = ends.get(task.task_id)
            end = (row.spent, row.loss) if row and row.state == "done" else None
            if row and row.loss and row.bits_per_byte:
                bits[model] = row.bits_per_byte / row.loss
            curve = self._curves.setdefault(task.folder.run_id, Curve()).read_on(task.folder)
            one = Series(
                task.folder.run_id,
                colours[_size(task)],
                curve.training,
                curve.validation(),
                (end[0], end[1]) if end and end[0] and end[1] else None,
            )
            by_model.setdefault(model, []).append(one)
        drawn = [panel(model, series, bits.get(model)) for model, series in by_model.items()]
        return [one for one in drawn if one]

    def _folders(self) -> list[Task]:
        """A task for each folder: a trunk once, whichever of its segments is trained."""
        trained = (task for task in self._view.tasks if task.is_run or task.is_segment)
        return list({task.folder.run_id: task for task in trained}.values())


def watch_page(view: StudyView, out: Path | None, say: Callable[[str], None]) -> None:
    """Write the page every minute until no run is open any more. Raises UserError."""
    file = out or view.folder.path / FILE
    page = Page(view, file)
    look = view.look()
    page.write(look)
    say(f"{file}: written every {EVERY_S:.0f} s until no run is open; Ctrl-C ends the writing only")
    while any(row.state in OPEN for row in look.rows):
        time.sleep(EVERY_S)
        look = view.look()
        page.write(look)


def _size(task: Task) -> str:
    return str(task.config_values["size"]["name"])


def _tone(row: Row) -> str:
    """How a row's state is coloured."""
    if row.state in GOOD:
        return "good"
    return "open" if row.state in OPEN else "bad"


def _template() -> jinja2.Template:
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("sweeps.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return found.get_template("live.html.j2")
