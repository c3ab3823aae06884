"""Whether a process of this machine lives, and since when: from /proc, or from `ps`."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

PROC = Path("/proc")
BOOT_ID = PROC / "sys/kernel/random/boot_id"
PS_TIMEOUT_S = 10.0


def start_time(pid: int) -> float | None:
    """When a process began (seconds since 1970); None where there is none, or a zombie."""
    return _from_proc(pid) if (PROC / "stat").exists() else _from_ps(pid)


def start_mark(pid: int) -> str | None:
    """A text that no other process of this machine has, whatever its clock does: the boot and the
    ticks since then. None where there is no such process, or no /proc."""
    ticks = _ticks(pid)
    try:
        return None if ticks is None else f"{BOOT_ID.read_text().strip()}:{ticks}"
    except OSError:
        return None


def _from_proc(pid: int) -> float | None:
    ticks = _ticks(pid)
    return None if ticks is None else _boot_time() + ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int | None:
    """Clock ticks from the boot to the begin of a process; None where there is none."""
    try:
        # the second field, the name in brackets, may contain spaces and brackets itself
        fields = (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


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
