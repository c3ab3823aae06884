"""What a plan has found damaged, said once where it is launched: it is made again."""

from __future__ import annotations

from ledger.damage import checkpoint_damage
from ledger.result import DONE
from sweeps.plan import Plan

SHOWN = 5


def damage_of(plan: Plan) -> list[str]:
    """A sentence for what is damaged and made again, and one for runs that are results alone."""
    folders = {name: plan.ledger.folder(name) for name in plan.ledger.present()}
    found = []
    for segment in plan.segments:
        path = plan.ledger.folder(segment.trunk_id).plateau(segment.target)
        if not segment.done and path.is_dir():
            found.append(f"{segment.trunk_id}/{path.name} ({checkpoint_damage(path)})")
    bare = 0
    for run in plan.runs:
        folder = folders.get(run.run_id)
        if folder is None:
            continue
        if run.status == DONE:
            bare += not folder.checkpoints.is_dir()
        elif damage := folder.damage():
            found.append(f"{run.run_id} ({damage})")
    said = []
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        said.append(f"damaged, set aside and made again: {', '.join(found[:SHOWN])}{more}")
    if bare:
        said.append(
            f"{bare} of the runs that are done have a result and no checkpoints/: to make one "
            "again, delete its result.json"
        )
    return said
