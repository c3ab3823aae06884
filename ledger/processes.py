"""Whether a process of this machine lives, and since when: from /proc, or from `ps`."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

PROC = Path("/proc")
PS_TIMEOUT_S = 10.0


def start_time(pid: int) -> float | None:
    """When a process began (seconds since 1970); None where there is none, or a zombie."""
    return _from_proc(pid) if (PROC / "stat").exists() else _from_ps(pid)


def _from_proc(pid: int) -> float | None:
    try:
        # the second field, the name in brackets, may contain spaces and brackets itself
        fields = (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX":
        return None
    return _boot_time() + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _boot_time() -> float:
    lines = (PROC / "stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))


def _from_ps(pid: int) -> float | None:
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=PS_TIMEOUT_S,
        check=False,
    ).stdout.split(maxsplit=1)
    if len(found) < 2 or found[0].startswith("Z"):
        return None
    return time.mktime(time.strptime(found[1].strip()))
