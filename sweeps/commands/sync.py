"""`sync`: what runs have tracked offline goes to W&B, once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from ledger.errors import UserError
from ledger.folder import RunFolder
from mor.train.tracking import GET_KEY, api_key_known, offline_parts
from sweeps.tables import counted

TIMEOUT_S = 600.0  # for one run


def sync(name: str, folders: Iterable[RunFolder], say: Callable[[str], object]) -> None:
    """Upload every part that is not marked as synced; a part is marked when W&B has taken it.

    `name` is what was asked for: a study or a run. Raises UserError without a key, or where W&B
    took nothing.
    """
    every = {folder.path: folder for folder in folders}
    waiting = {path: parts for path, f in every.items() if (parts := offline_parts(f))}
    if not waiting:
        say(f"{name}: nothing was tracked offline that is not synced already")
        return
    if not api_key_known():
        raise UserError(
            f"{name}: {counted(len(waiting), 'run')} tracked offline and no API key for W&B; "
            f"{GET_KEY}, then type this again"
        )
    failed = {}
    for path, parts in waiting.items():
        error = _sync(every[path], parts)
        if error:
            failed[path.name] = error
        say(f"{path.name}: {error or 'synced'}")
    if failed:
        raise UserError(
            f"{name}: {len(failed)} of {len(waiting)} runs were not taken "
            f"({next(iter(failed.values()))}); python -m sweeps sync {name} tries those again"
        )


def _sync(folder: RunFolder, parts: list[Path]) -> str | None:
    """Upload the parts of one run, in order; returns what went wrong."""
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", *map(str, parts)]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"W&B did not answer within {TIMEOUT_S:g} s"
    if ended.returncode or offline_parts(folder):
        lines = [line.strip() for line in (ended.stdout + ended.stderr).splitlines()]
        return " ".join([line for line in lines if line][-2:])
    return None
