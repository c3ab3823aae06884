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
    """git commit (with `+changes` where the tree differs from it), the git tree of the training
    code alone (which stays as it is when only documents change), Python and torch versions."""
    return {
        "git_commit": _git("HEAD", "."),
        "code": _git("HEAD:mor", "mor"),
        "versions": {"python": platform.python_version(), "torch": metadata.version("torch")},
    }


def _git(name: str, folder: str) -> str | None:
    """The id of `name`, with `+changes` where `folder` of the tree differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", folder)
        return git("rev-parse", name) + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
