"""The end of a run whose loss or gradient is not finite, kept so that no later launch trains it to
the same end.

A run that diverged has a result that says so. A trunk has none; it gets `diverged.json` with the
FLOPs at which it happened: plateau ends before them are as good as ever, one beyond is refused.
"""

from __future__ import annotations

from ledger.errors import DamagedFile
from ledger.files import read_json, write_json
from ledger.folder import RunFolder


class Diverged(Exception):
    """The loss or a gradient is not finite: the run is stopped and marked so."""


def mark_diverged(folder: RunFolder, step: int, spent: float, error: str) -> None:
    """Note that a trunk diverged at the step after `step`, with `spent` FLOPs behind it."""
    write_json(folder.diverged_file, {"step": step, "spent": spent, "error": error})


def known_divergence(folder: RunFolder, target: float) -> str | None:
    """How a trunk is known to diverge before `target` FLOPs; None: it is not."""
    try:
        known = read_json(folder.diverged_file) or {}
        spent = float(known["spent"])
    except (DamagedFile, KeyError, TypeError, ValueError):  # not there, or torn: train it and see
        return None
    if spent >= target:
        return None
    return f"{known.get('error')} (known from an earlier launch: not trained again)"


def clear_diverged(folder: RunFolder) -> bool:
    """Forget that a run or trunk diverged, so that the next launch trains it again from its newest
    checkpoint. False: it had not diverged."""
    marked = folder.diverged_file.exists()
    folder.diverged_file.unlink(missing_ok=True)
    result = folder.result()
    if result is not None and result.diverged:
        folder.result_file.unlink()
        marked = True
    return marked
