"""`launch.forecast=true`: what the study's own points say of the runs that are about to start.

Every run of a model that the study has points of, and best losses and gaps at the budgets where
the launched sizes and the finished ones could enclose a minimum.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator

from rich.console import Console

from ledger.plan_file import RunEntry, StudyFolder, read_plan
from ledger.result import FINISHED
from sweeps.plan import Plan

SIZES = 3  # that a minimum takes


def forecast(plan: Plan, folder: StudyFolder, console: Console) -> None:
    """Write a forecast into the study's folder and print it; a study that has too few points for
    one says so and is launched all the same."""
    waiting = [run for run in plan.as_file().runs if run.status not in FINISHED and run.budget]
    if not waiting:
        return

    def say(text: str) -> None:
        console.print(f"launch.forecast: {text}", highlight=False, markup=False, soft_wrap=True)

    done = _finished(plan, folder) if folder.plan_file.exists() else []
    if not done:
        say("the study has no finished runs yet, so nothing is forecast")
        return
    known = {_name(run) for run in done}
    unknown = sorted({_name(run) for run in waiting} - known)
    if unknown:
        say(f"{', '.join(unknown)}: the study has no finished run of it, so none is forecast")
    wanted = [run for run in waiting if _name(run) in known]
    if not wanted:
        return
    asked = [part for text in (*_best(wanted, done), *_runs(wanted)) for part in ("--at", text)]
    command = [sys.executable, "-m", "analysis", "forecast", str(folder.path), *asked]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["it ended without a word"]
        say(f"nothing is forecast ({last[0].removeprefix('error: ')})")
        return
    console.print(ended.stdout, highlight=False, markup=False, end="")


def _finished(plan: Plan, folder: StudyFolder) -> list[RunEntry]:
    """The runs of the study, earlier launches included, that are points."""
    runs = {run.run_id: run for run in (*read_plan(folder.plan_file).runs, *plan.as_file().runs)}
    results = ((run, plan.ledger.result(run_id)) for run_id, run in runs.items())
    return [run for run, result in results if result is not None and result.done and run.budget]


def _name(run: RunEntry) -> str:
    """What the curve of a run is called, or begins with."""
    return run.label or run.model


def _best(wanted: list[RunEntry], done: list[RunEntry]) -> Iterator[str]:
    """Models by the budgets at which there will be sizes enough."""
    new, sizes = {_place(run) for run in wanted}, defaultdict(set)
    for run in (*wanted, *done):
        sizes[_place(run)].add(run.size)
    at: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for budget in sorted({budget for budget, _ in new}):
        names = sorted(n for b, n in new if b == budget and len(sizes[b, n]) >= SIZES)
        at[tuple(names)].append(budget)
    for enough, budgets in at.items():
        if enough:
            yield _asked(budgets, enough)


def _runs(wanted: list[RunEntry]) -> Iterator[str]:
    """Single runs, model by model: a size has other parameters in each."""
    params: dict[tuple[float, str], set[int]] = defaultdict(set)
    for run in wanted:
        if run.n_params_nonembedding:
            params[_place(run)].add(run.n_params_nonembedding)
    at: dict[tuple[str, tuple[int, ...]], list[float]] = defaultdict(list)
    for (budget, name), held in sorted(params.items()):
        at[name, tuple(sorted(held))].append(budget)
    for (name, sizes), budgets in at.items():
        yield f"{_asked(budgets, [name])} params={','.join(map(str, sizes))} best=no"


def _place(run: RunEntry) -> tuple[float, str]:
    return float(run.budget or 0), _name(run)


def _asked(budgets: Iterable[float], names: Iterable[str]) -> str:
    return f"budget={','.join(map(repr, budgets))} model={shlex.quote(','.join(names))}"
