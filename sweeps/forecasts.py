"""`launch.forecast=true`: what the study's own points say of the budgets that are about to run."""

from __future__ import annotations

import subprocess
import sys

from rich.console import Console

from ledger.plan_file import StudyFolder
from sweeps.plan import Plan


def forecast(plan: Plan, folder: StudyFolder, console: Console) -> None:
    """Write a forecast into the study's folder and print it; a study that has too few points for
    one says so and is launched all the same."""
    waiting = (run for run in plan.as_file().runs if run.status != "done" and run.budget)
    budgets = sorted({float(run.budget) for run in waiting if run.budget})
    if not budgets:
        return
    if not folder.plan_file.exists():
        console.print(
            "launch.forecast: the study has no finished runs yet, so nothing is forecast",
            highlight=False,
        )
        return
    at = f"budget={','.join(map(repr, budgets))}"
    command = [sys.executable, "-m", "analysis", "forecast", str(folder.path), "--at", at]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["it ended without a word"]
        said = last[0].removeprefix("error: ")
        console.print(f"launch.forecast: nothing is forecast ({said})", highlight=False)
        return
    console.print(ended.stdout, highlight=False, markup=False, end="")
