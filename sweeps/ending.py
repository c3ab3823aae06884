"""How a launch ended: what failed and where its log is, and what to type next."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from ledger.result import DONE, FINISHED
from ledger.store import Ledger
from sweeps.backends.base import LaunchFailed
from sweeps.plan import Plan
from sweeps.terminal import marked

NAMED = 3  # runs that failed alike
AGAIN = "the same command goes on from the newest checkpoints"


@dataclass(frozen=True)
class Outcome:
    """Runs by how they ended."""

    done: int
    failed: int
    diverged: int
    left: int  # stopped, cancelled, or held by another launch that ended
    unscored: int = 0  # evaluations of runs that are done
    labelled: bool = False  # the study has variants

    def pages(self, folder: str) -> list[str]:
        """What to type now that there are results."""
        if not self.done:
            return []
        report = f"Fits and charts on one page: python -m analysis report {folder}"
        figures = f"The paper's tables and figures: python -m analysis figures {folder}"
        return [report, figures] if self.labelled else [report]

    def refuse(self, study: str) -> None:
        """Raises LaunchFailed where not all has ended well, with what to do about it."""
        said, advice = [], []
        if self.failed:
            said.append(f"{_runs(self.failed)} failed (see above)")
            advice.append(f"fix the cause, and {AGAIN}")
        if self.diverged:
            said.append(f"{_runs(self.diverged)} diverged")
            advice.append(
                "a smaller train.lr makes another run of one that diverged, "
                f"python -m sweeps retry {study} --diverged trains it once more as it is"
            )
        if self.left:
            said.append(f"{_runs(self.left)} did not end")
            if not self.failed:
                advice.insert(0, AGAIN)
        if said:
            raise LaunchFailed(f"study {study}: {', '.join(said)}; {'; '.join(advice)}")
        if self.unscored:
            raise LaunchFailed(
                f"study {study}: all runs are done, {self.unscored} evaluations are not "
                "(see above); fix the cause, and the same command scores what is left"
            )


def _runs(number: int) -> str:
    return f"{number} run{'s' * (number != 1)}"


def summary(plan: Plan, ledger: Ledger, console: Console) -> Outcome:
    """Say what failed, each error once, with the last lines of a log and where the log is."""
    states = {run.run_id: ledger.state(run.run_id) for run in plan.runs}
    open_runs = [run for run in plan.runs if states[run.run_id] not in FINISHED]
    lost: dict[str, str] = {}  # state of the trunk that a run waited for
    for run in open_runs:
        if run.trunk_id and (state := _own_state(ledger, run.trunk_id)) in ("failed", "diverged"):
            lost[run.run_id] = state
    states |= lost
    trunks = dict.fromkeys(run.trunk_id for run in open_runs if run.run_id in lost)
    own = [name for name, state in states.items() if state in ("failed", "diverged")]
    alike: dict[tuple[str, str], list[str]] = {}
    for name in [*(name for name in own if name not in lost), *filter(None, trunks)]:
        status = ledger.folder(name).status() or {}
        alike.setdefault((str(status["state"]), str(status.get("error"))), []).append(name)
    for (state, error), names in alike.items():
        _say(state, error, names, ledger, console)
    count = list(states.values()).count
    ended = count("done"), count("failed"), count("diverged")
    labelled = any(run.config.label for run in plan.runs)
    left = len(states) - sum(ended)
    return Outcome(*ended, left, _unscored(plan, ledger, console), labelled)


def _say(state: str, error: str, names: list[str], ledger: Ledger, console: Console) -> None:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    named = ", ".join(names[:NAMED]) + more
    console.print(marked(state, f"{named}: {error}"), soft_wrap=True)
    folder = ledger.folder(names[0])
    for line in folder.log_tail():
        if error not in line:
            console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"    log: {folder.log_file}", highlight=False, soft_wrap=True, markup=False)


def _unscored(plan: Plan, ledger: Ledger, console: Console) -> int:
    """How many evaluations of finished runs are not done; says why."""
    tasks = [t for t in plan.graph if t.is_evaluation and not t.finished(ledger)]
    missing = [task for task in tasks if ledger.state(task.folder.run_id) == DONE]
    for task in missing:
        status = task.folder.status() or {}
        own = status if status.get("task_id") == task.task_id else {}
        said = marked("not scored", f"{task.task_id}: {own.get('error')}")
        console.print(said, soft_wrap=True)
        log = f"    log: {task.folder.log_file}"
        console.print(log, highlight=False, soft_wrap=True, markup=False)
    return len(missing)


def _own_state(ledger: Ledger, trunk: str) -> str:
    return str((ledger.folder(trunk).status() or {}).get("state"))
