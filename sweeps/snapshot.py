"""The code that jobs run from: a copy taken at submission, so that later edits do not leak in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from ledger.files import write_json
from ledger.provenance import (
    PACKAGES,
    PARTS,
    RECORD,
    ROOT,
    changes_of_code,
    code_state,
    git,
    is_checkout,
    untracked_code,
)


def take_snapshot(code: Path) -> dict[str, Any]:
    """Copy the code of this process to the folder `code`; returns its commit and digest.

    From a git checkout: every file of the packages that git knows, as it stands, untracked Python
    and YAML files, and `changes.diff`, what differs from the commit. Elsewhere: the packages.
    """
    code.mkdir(parents=True)
    state = code_state()
    try:
        files = [*git("ls-files", "-z", "--", *PARTS).split("\0"), *untracked_code()]
        changes = changes_of_code() if is_checkout() else None
    except (OSError, subprocess.SubprocessError):
        changes = None
    if changes is None:
        _copy_packages(code)
    else:
        _copy_files(code, [name for name in files if name])
        (code / "changes.diff").write_text(changes, errors="surrogateescape")
    write_json(code / RECORD, state)
    return state


def _copy_files(code: Path, names: list[str]) -> None:
    for name in names:
        if (ROOT / name).is_file():  # a file that git knows may have been deleted
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, code / name)


def _copy_packages(code: Path) -> None:
    for name in PACKAGES:
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
