"""`logs`: what a run has written, and as it writes it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ledger.claims import Claim
from ledger.errors import UserError
from ledger.folder import RunFolder

POLL_S = 0.3


def show_log(folder: RunFolder, lines: int | None, write: Callable[[str], object]) -> int:
    """Write a log, or its last lines; returns how far it was read (bytes).

    Raises UserError where nothing has begun.
    """
    if not folder.log_file.exists():
        raise UserError(
            f"{folder.run_id}: it has not begun, so there is no log; "
            f"python -m sweeps why {folder.run_id} says what it waits for"
        )
    data = folder.log_file.read_bytes()
    text = data.decode(errors="replace")
    kept = text.splitlines(keepends=True)
    write("".join(kept if lines is None else kept[max(0, len(kept) - lines) :]))
    return len(data)


def follow_log(folder: RunFolder, at: int, write: Callable[[str], object]) -> None:
    """Go on with what is added, until no process trains the run any more."""
    while True:
        held = Claim(folder.path).held()  # before reading: the last lines are not missed
        with folder.log_file.open("rb") as file:
            file.seek(at)
            added = file.read()
        at += len(added)
        if added:
            write(added.decode(errors="replace"))
            sys.stdout.flush()
        elif not held:
            return
        time.sleep(POLL_S)
