"""Where a number comes from: the commit of the code and the versions that ran it."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


@functools.cache
def provenance() -> dict[str, Any]:
    """git commit (with `+changes` where the tree differs from it), Python and torch versions."""
    return {
        "git_commit": _commit(),
        "versions": {"python": platform.python_version(), "torch": metadata.version("torch")},
    }


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
