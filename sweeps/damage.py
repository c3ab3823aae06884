"""What is damaged in a plan's folders, said once where it is launched: it is made again."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from ledger.damage import aside, checkpoint_damage, name_before
from ledger.result import DONE
from sweeps.plan import Plan

SHOWN = 5


def damage_of(plan: Plan) -> dict[Path, str]:
    """What planning finds damaged, or missing though it was there: it is planned again.

    By path (of a checkpoint or a run's folder), with a text.
    """
    present = plan.ledger.present()
    begun = {need for run in plan.runs if run.run_id in present for need in run.depends_on}
    needed = plan.graph.needed({task.task_id for task in plan.graph if task.done})
    found = {}
    for segment in plan.segments:
        path = plan.ledger.folder(segment.trunk_id).plateau(segment.target)
        if segment.done or segment.segment_id not in needed:
            continue
        if path.is_dir():
            found[path] = f"{segment.trunk_id}/{path.name} ({checkpoint_damage(path)})"
        elif segment.segment_id in begun:
            found[path] = f"{segment.trunk_id}/{path.name} (missing)"
    for run in plan.runs:
        folder = plan.ledger.folder(run.run_id)
        if run.run_id in present and run.status != DONE and (damage := folder.damage()):
            found[folder.path] = f"{run.run_id} ({damage})"
    return found


def say_damage(plan: Plan, console: Console) -> None:
    """Say what is damaged and planned again, and which runs are results alone."""
    found = damage_of(plan)
    if found:
        _print(f"damaged or missing, made again: {_listing(list(found.values()))}", console)
    ended = [plan.ledger.folder(run.run_id) for run in plan.runs if run.status == DONE]
    bare = sum(not folder.checkpoints.is_dir() for folder in ended)
    if bare:
        _print(
            f"{bare} of the runs that are done have a result and no checkpoints/: to make one "
            "again, delete its result.json",
            console,
        )


class SetAside:
    """What a launch finds damaged only when it uses it, beyond what planning has said."""

    def __init__(self, plan: Plan) -> None:
        names = {name for run in plan.runs for name in (run.run_id, run.trunk_id) if name}
        self._folders = [plan.ledger.folder(name).path for name in sorted(names)]
        self._before = self._now()
        self._said = damage_of(plan).keys()

    def say(self, console: Console) -> None:
        new = [path for path in self._now() if path not in self._before and not self._known(path)]
        if new:
            names = _listing([str(path) for path in new])
            _print(f"damaged, set aside and made again: {names}", console)

    def _now(self) -> list[Path]:
        return [path for folder in self._folders for path in aside(folder)]

    def _known(self, path: Path) -> bool:
        was = name_before(path)
        return bool({was, *was.parents} & self._said)


def _print(text: str, console: Console) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _listing(items: Collection[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(list(items)[:SHOWN]) + more
