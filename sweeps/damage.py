"""What is damaged in a plan's folders, said once where it is launched: it is made again."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from ledger.damage import aside, checkpoint_damage
from ledger.result import DONE
from sweeps.plan import Plan

SHOWN = 5


def damage_of(plan: Plan) -> list[str]:
    """What planning has found damaged, or missing though it was there: it is planned again."""
    present = plan.ledger.present()
    begun = {need for run in plan.runs if run.run_id in present for need in run.depends_on}
    needed = plan.graph.needed({task.task_id for task in plan.graph if task.done})
    found = []
    for segment in plan.segments:
        path = plan.ledger.folder(segment.trunk_id).plateau(segment.target)
        if segment.done or segment.segment_id not in needed:
            continue
        if path.is_dir():
            found.append(f"{segment.trunk_id}/{path.name} ({checkpoint_damage(path)})")
        elif segment.segment_id in begun:
            found.append(f"{segment.trunk_id}/{path.name} (missing)")
    bare = 0
    for run in plan.runs:
        if run.run_id not in present:
            continue
        folder = plan.ledger.folder(run.run_id)
        if run.status == DONE:
            bare += not folder.checkpoints.is_dir()
        elif damage := folder.damage():
            found.append(f"{run.run_id} ({damage})")
    said = []
    if found:
        said.append(f"damaged or missing, made again: {_listing(found)}")
    if bare:
        said.append(
            f"{bare} of the runs that are done have a result and no checkpoints/: to make one "
            "again, delete its result.json"
        )
    return said


def set_aside_in(plan: Plan) -> set[Path]:
    """What stands set aside in the folders of a plan's runs and trunks."""
    names = {name for run in plan.runs for name in (run.run_id, run.trunk_id) if name}
    return {path for name in names for path in aside(plan.ledger.folder(name).path)}


def print_set_aside(paths: Collection[Path], console: Console) -> None:
    """Say what a launch has found damaged while it ran."""
    if paths:
        text = f"damaged, set aside and made again: {_listing([str(p) for p in sorted(paths)])}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _listing(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
