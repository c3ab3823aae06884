"""`python -m sweeps`: what studies and runs are doing, and what to do about it."""

from __future__ import annotations

from ledger import interrupts

if __name__ == "__main__":
    interrupts.watch()  # before imports that take long

import dataclasses
import gc
import json
import os
import shutil
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from typer.core import TyperGroup

from ledger.errors import UserError, disk_trouble
from ledger.usage import OneSentence
from sweeps.backends.base import BackendSilent
from sweeps.board import board
from sweeps.commands.find import find_folder, find_target, plan_named, study_view
from sweeps.terminal import plain_console
from sweeps.watch import OPEN, Look


class Group(OneSentence, TyperGroup):
    """The commands."""


app = typer.Typer(
    cls=Group,
    help="What studies and runs are doing, read from the ledger and from Slurm.\n\n"
    "Examples:\n\n"
    "    python -m sweeps status                 the study that was launched last\n\n"
    "    python -m sweeps watch quick            live, until all runs have ended\n\n"
    "    python -m sweeps why mor-9k-3e8         why a run waits or ended, in words\n\n"
    "    python -m sweeps logs mor-9k-3e8 -f     its log, as it is written\n\n"
    "    python -m sweeps cancel quick           stop it; runs write checkpoints first\n\n"
    "    python -m sweeps retry quick            run again what failed or was stopped\n\n"
    "    python -m sweeps benchmark quick        measure its speeds, which prices rest on\n\n"
    "    python -m sweeps autopilot quick --gpu-hours 1 --until 'a +- .1'   fit, launch, repeat\n\n"
    "A study is named by its name or folder, a run by any unique beginning of its id.",
    no_args_is_help=True,
    add_completion=False,
)
Study = Annotated[str | None, typer.Argument(help="Name or folder of the study; default: newest.")]
StudyOrRun = Annotated[str, typer.Argument(help="A study, or a unique beginning of a run's id.")]
RunName = Annotated[str, typer.Argument(help="A unique beginning of the run's id.")]
Studies = Annotated[Path, typer.Option("--studies-dir", help="Where studies are kept.")]
Runs = Annotated[Path, typer.Option("--runs-dir", help="Run store, for runs of no study.")]
Diverged = Annotated[bool, typer.Option("--diverged", help="Those that diverged, too.")]
STUDIES, RUNS = Path("studies"), Path("runs")

REFRESH_S = 1.0
REFRESH_QUEUE_S = 5.0  # spares the controller
RARELY = 10**6  # objects between collections: a study of 10,000 runs is read once and stays alive
PIPED_WIDTH = 200  # where no width is set: all columns


@app.command()
def status(
    study: Study = None,
    studies_dir: Studies = STUDIES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """State, budget spent, loss, speed, attempts and cost of each run; ETA and cost of a study."""
    look = study_view(study, studies_dir).look()
    if as_json:
        print(json.dumps(_as_json(look), indent=1))
        return
    console = plain_console()
    text = board(look, _width(console))
    if console.is_terminal:
        console.print(text, soft_wrap=True, highlight=False)
    else:  # without colours: a fifth of the time for 10,000 rows
        print(text.plain)


@app.command()
def watch(
    study: Study = None,
    studies_dir: Studies = STUDIES,
    page: Annotated[
        bool, typer.Option("--page", help="Write an HTML page with learning curves instead.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="With --page: the file; default: watch.html of the study.")
    ] = None,
) -> None:
    """The same, live, until no run is open any more; Ctrl-C leaves the runs alone.

    With --page, one file of HTML that needs nothing else: written every minute, it reloads itself.
    """
    view, console = study_view(study, studies_dir), plain_console()
    if page:
        from sweeps.page.live import watch_page

        watch_page(view, out, lambda text: console.print(text, soft_wrap=True, highlight=False))
        return
    look = view.look()
    window = console.is_terminal
    with Live(console=console, auto_refresh=False) if window else nullcontext() as live:
        try:
            while any(row.state in OPEN for row in (*look.rows, *look.evaluations)):
                if live:
                    live.update(board(look, console.width, console.height), refresh=True)
                in_queue = any(row.job_id for row in (*look.rows, *look.segments))
                time.sleep(REFRESH_QUEUE_S if in_queue else REFRESH_S)
                look = view.look()
            if live:
                live.update(board(look, console.width), refresh=True)
        finally:
            if not live:  # once: Live cuts lines at 80 columns where there is no window
                print(board(look, _width(console)).plain)


@app.command()
def benchmark(
    study: Study = None,
    seconds: Annotated[
        float | None, typer.Option(help="Of steps, each; default: launch.calibrate_s of the study.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Those with a speed, too.")] = False,
    studies_dir: Studies = STUDIES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Measure how fast each model and size of a study trains where it runs: a minute each, on Slurm
    as a short array. Plans, time limits and ETAs then use it. Before a first launch:
    launch.calibrate=true."""
    from sweeps.commands.benchmark import benchmark as run

    run(study, studies_dir, seconds, again, as_json)


@app.command()
def autopilot(
    study: Study = None,
    gpu_hours: Annotated[
        float, typer.Option(help="Device-hours that it may spend, from its first round on.")
    ] = ...,  # type: ignore[assignment]
    until: Annotated[
        str, typer.Option(help="Exponent and half width (95 %) that are enough: 'a +- 0.02'.")
    ] = "a +- 0.02",
    runs: Annotated[int, typer.Option(help="Runs of each model in one round.")] = 3,
    allow_mixed: Annotated[
        bool,
        typer.Option("--allow-mixed", help="Fit points of several versions of the code together."),
    ] = False,
    studies_dir: Studies = STUDIES,
) -> None:
    """Fit, launch the most informative runs for their cost, wait, fit again, until every model's
    exponent is known well enough (approach 3) or the hours are spent. Ctrl-C loses nothing: the
    same command goes on. Rounds are kept in studies/NAME/autopilot/.

    Exit codes: 0 known well enough, 3 stopped before, 2 a mistake."""
    from ledger.autopilot import MET
    from sweeps.autopilot.fly import Autopilot

    view = study_view(study, studies_dir)
    reason = Autopilot(view, until, gpu_hours, runs, plain_console(), allow_mixed).fly()
    if reason != MET:
        raise typer.Exit(3)


@app.command()
def why(name: RunName, studies_dir: Studies = STUDIES) -> None:
    """Why a run waits, failed or stopped, in words; its attempts and the end of its log."""
    from sweeps.commands.why import explain

    target = find_target(name, studies_dir)
    if target.task is None:
        raise UserError(f"{name}: a study; name one of its runs, python -m sweeps status has them")
    for line in explain(target.view, target.task):
        print(line)


@app.command()
def logs(
    run: RunName,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it grows.")] = False,
    lines: Annotated[int | None, typer.Option("-n", min=0, help="Only the last lines.")] = None,
    studies_dir: Studies = STUDIES,
    runs_dir: Runs = RUNS,
) -> None:
    """The log of a run or trunk."""
    from sweeps.commands.logs import follow_log, show_log

    folder = find_folder(run, studies_dir, runs_dir)
    at = show_log(folder, lines, sys.stdout.write)
    if follow:
        follow_log(folder, at, sys.stdout.write)


@app.command()
def cancel(name: StudyOrRun, studies_dir: Studies = STUDIES) -> None:
    """Stop a study or a run: what runs writes a checkpoint, what waits is taken off the queue."""
    from sweeps.commands.cancel import cancel_run, cancel_study

    target = find_target(name, studies_dir)
    view = target.view
    ended = cancel_study(view) if target.task is None else cancel_run(view, target.task)
    if not ended.tasks:
        print(f"{name}: nothing is left to cancel")
        return
    print(f"{len(ended.tasks)} runs and trunk segments cancelled; what runs stops at a checkpoint")
    if ended.jobs:
        print(f"jobs ended: {' '.join(ended.jobs)}")
    if ended.elsewhere:
        print(f"these go on, this study did not start them: {' '.join(ended.elsewhere)}")
    print(f"python -m sweeps retry {name}   goes on with them")


@app.command()
def retry(name: StudyOrRun, diverged: Diverged = False, studies_dir: Studies = STUDIES) -> None:
    """Run again what failed, was cancelled or has stopped, as the study was launched."""
    _again(name, studies_dir, failed=True, diverged=diverged)


@app.command()
def launch(
    study: StudyOrRun,
    retry: Annotated[bool, typer.Option("--retry", help="Failed and cancelled runs, too.")] = False,
    diverged: Diverged = False,
    studies_dir: Studies = STUDIES,
) -> None:
    """Go on with a study's saved plan: what has not begun or was interrupted."""
    _again(study, studies_dir, failed=retry, diverged=diverged)


@app.command()
def sync(
    name: Annotated[
        str | None, typer.Argument(help="A study, or a run of any; default: the newest study.")
    ] = None,
    studies_dir: Studies = STUDIES,
    runs_dir: Runs = RUNS,
) -> None:
    """Upload what runs have tracked offline to W&B."""
    from sweeps.commands.sync import sync as upload

    if name is not None and plan_named(name, studies_dir) is None:
        folder = find_folder(name, studies_dir, runs_dir)
        upload(folder.run_id, [folder], print)
        return
    view = study_view(name, studies_dir)
    upload(view.study, (task.folder for task in view.tasks), print)


def _again(name: str, studies_dir: Path, *, failed: bool, diverged: bool) -> None:
    from sweeps.commands.retry import damaged_aside, launch_again, runs_to_retry

    target = find_target(name, studies_dir)
    if target.task is not None and damaged_aside(target.view, target.task):
        print(f"{target.task.task_id}: its final weights are damaged and were set aside")
    chosen, kept_out = runs_to_retry(
        target.view.look(), target.task, failed=failed, diverged=diverged
    )
    if kept_out:
        print(f"left out, they diverged (--diverged tries them): {', '.join(kept_out)}")
    if not chosen:
        left = (
            ""
            if failed
            else f"; python -m sweeps retry {name} takes failed and cancelled runs, too"
        )
        print(f"{name}: nothing to run again{left}; python -m sweeps status shows what it does")
        return
    launch_again(target.view, chosen, diverged)


def _width(console: Console) -> int:
    """The window's width; in a pipe COLUMNS counts, or there is no limit."""
    if console.is_terminal:
        return console.width
    return shutil.get_terminal_size((PIPED_WIDTH, 50)).columns


def _as_json(look: Look) -> dict[str, object]:
    return {
        "study": look.study,
        "runs": [vars(row) for row in look.rows],
        "segments": [vars(row) for row in look.segments],
        **({"evaluations": [vars(row) for row in look.evaluations]} if look.evaluations else {}),
        **({"data": [vars(row) for row in look.data]} if look.data else {}),
        "counts": look.counts(),
        "cost": dataclasses.asdict(look.cost),
        "eta_hours": look.eta_hours,
        "notes": look.notes,
    }


def main() -> int:
    gc.set_threshold(RARELY)
    try:
        app(standalone_mode=True)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except BackendSilent as silent:
        print(f"error: the scheduler did not take it ({silent}); try again", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return interrupts.CODE
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if not (sentence := disk_trouble(error)):
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
