"""Where a number comes from: the commit of the code and the versions that ran it."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]  # of a checkout, a snapshot or the installed packages
PACKAGES = ("ledger", "mor", "sweeps")  # what a run imports
PARTS = (*PACKAGES, "hydra_plugins", "conf", "sweep.py", "pyproject.toml", "requirements.lock")
UNKNOWN = {"git_commit": None, "code": None, "diff_digest": None}
RECORD = "snapshot.json"  # beside the packages of a snapshot: its code_state


@functools.cache
def provenance() -> dict[str, Any]:
    """`git_commit` (with `+changes` where the code differs from it), `diff_digest` of what differs,
    `code`, the git tree of the training code alone (which stays as it is when only documents
    change), and the versions of Python and torch."""
    return {
        **code_state(),
        "versions": {"python": platform.python_version(), "torch": metadata.version("torch")},
    }


def code_state() -> dict[str, Any]:
    """The commit, tree and digest of the code that this process runs: of its snapshot, or of the
    checkout as it stands; None for each outside of one."""
    try:
        record = json.loads((ROOT / RECORD).read_text())
        return {name: record[name] for name in UNKNOWN}
    except FileNotFoundError:
        pass
    try:
        if not is_checkout():
            return dict(UNKNOWN)
        changes, new = changes_of_code(), untracked_code()
        commit, tree = git("rev-parse", "HEAD", "HEAD:mor").split()
        of_mor = git("status", "--porcelain", "--untracked-files=no", "--", "mor")
    except (OSError, subprocess.SubprocessError):
        return dict(UNKNOWN)
    code = tree + ("+changes" if of_mor else "")
    if not changes and not new:
        return {"git_commit": commit, "code": code, "diff_digest": None}
    digest = hashlib.sha256(changes.encode(errors="surrogateescape"))
    for name in new:
        digest.update(name.encode() + (ROOT / name).read_bytes())
    return {
        "git_commit": f"{commit}+changes",
        "code": code,
        "diff_digest": digest.hexdigest()[:12],
    }


def is_checkout() -> bool:
    """Whether the code stands at the top of a git checkout."""
    return Path(git("rev-parse", "--show-toplevel").strip()).resolve() == ROOT


def changes_of_code() -> str:
    """What differs from the commit in the files that git knows."""
    return git("diff", "HEAD", "--binary", "--", *PARTS)


def untracked_code() -> list[str]:
    """Python and YAML files that git does not know yet, and that a run may need."""
    names = git("ls-files", "-z", "--others", "--exclude-standard", "--", *PARTS).split("\0")
    return sorted(name for name in names if name.endswith((".py", ".yaml")))


def git(*arguments: str) -> str:
    """The output of a git command in the folder of the code. Raises OSError, SubprocessError."""
    return subprocess.run(
        ["git", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=True,
        timeout=60,
    ).stdout
