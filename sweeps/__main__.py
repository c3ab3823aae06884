"""`python -m sweeps`: what a study is doing, read from the ledger."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from mor.config import UserError
from sweeps.ledger import Ledger
from sweeps.watch import StudyView, study_plan_file, study_table

app = typer.Typer(
    help="What a study is doing, read from the ledger.\n\n"
    "Examples:\n\n"
    "    python -m sweeps status                 the study that was launched last\n\n"
    "    python -m sweeps status quick --json    for a script\n\n"
    "    python -m sweeps watch quick            live, until all runs have ended",
    no_args_is_help=True,
    add_completion=False,
)
Study = Annotated[str | None, typer.Argument(help="Name of the study; default: the newest.")]
Studies = Annotated[Path, typer.Option("--studies-dir", help="Where studies are kept.")]


@app.command()
def status(
    study: Study = None,
    studies_dir: Studies = Path("studies"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Each run's state, share of its budget spent, loss and speed; done and ETA of the study."""
    view = _view(study, studies_dir)
    if as_json:
        print(json.dumps([vars(row) for row in view.rows()], indent=1))
        return
    Console().print(study_table(view))


@app.command()
def watch(study: Study = None, studies_dir: Studies = Path("studies")) -> None:
    """The same, live, until every run has ended."""
    view = _view(study, studies_dir)
    with Live(study_table(view), auto_refresh=False) as live:
        while any(row.state in ("planned", "running", "interrupted") for row in view.rows()):
            live.update(study_table(view), refresh=True)
            time.sleep(1.0)
        live.update(study_table(view), refresh=True)


def _view(study: str | None, studies_dir: Path) -> StudyView:
    if study is None:
        plans = sorted(studies_dir.glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
        if not plans:
            raise UserError(
                f"--studies-dir={studies_dir}: no study was launched from here yet; "
                "type python sweep.py -m study=quick"
            )
        plan_file = plans[-1]
    else:
        plan_file = study_plan_file(studies_dir, study)
    runs_dir = json.loads(plan_file.read_text())["runs_dir"]
    return StudyView(plan_file, Ledger(Path(runs_dir)))


def main() -> int:
    try:
        app(standalone_mode=True)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
