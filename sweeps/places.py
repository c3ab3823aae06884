"""The folders that a launch writes to, tried before it starts."""

from __future__ import annotations

from pathlib import Path

from ledger.errors import UserError
from ledger.result import FINISHED
from mor.data.needs import corpus_folder
from sweeps.plan import Plan


def refuse_no_cache(plan: Plan) -> None:
    """Raises UserError where a corpus that is to be prepared here cannot be written. One that is
    there may lie where only others write."""
    left = {run.config.data for run in plan.runs if run.status not in FINISHED}
    folders = {data.cache_dir for data in left if not corpus_folder(data).exists()}
    folders |= {one.data.cache_dir for one in plan.data if one.missing}
    for folder in sorted(folders):
        refuse_unwritable("data.cache_dir", Path(folder).expanduser().absolute())


def refuse_unwritable(setting: str, folder: Path) -> None:
    """Raises UserError where a folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{setting}={folder}: cannot be written ({error.strerror}); "
            f"choose another with {setting}=<folder>"
        ) from None
