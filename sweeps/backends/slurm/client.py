"""Slurm's commands: one way to call them, to read their errors and to read their times."""

from __future__ import annotations

import os
import re
import subprocess

from sweeps.backends.base import BackendSilent

TIMEOUT_S = 30.0  # for a controller that does not answer


def call(*command: str, timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a client command, however it ends. Raises BackendSilent where it does not answer."""
    limit = TIMEOUT_S if timeout_s is None else timeout_s
    try:
        return subprocess.run(
            command,
            env={**os.environ, "SLURM_TIME_FORMAT": "%s"},
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BackendSilent(f"{command[0]}: no answer in {limit:.0f} s") from None
    except OSError as error:
        raise BackendSilent(f"{command[0]}: {error.strerror}") from None


def output(*command: str, timeout_s: float | None = None) -> str:
    """What a client command prints. Raises BackendSilent where it fails or does not answer."""
    ended = call(*command, timeout_s=timeout_s)
    if ended.returncode:
        raise BackendSilent(f"{command[0]}: {reason(ended.stderr)}")
    return ended.stdout


def reason(stderr: str) -> str:
    """The last words of a client command, without its name and level."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    words = re.sub(r"^(\w+: )?((error|fatal): )?", "", lines[-1]) if lines else "no reason given"
    return words.removeprefix("allocation failure: ").removeprefix("Batch job submission failed: ")


def seconds(text: str) -> int | None:
    """Seconds of days-hours:minutes:seconds; None for anything else, as where there is no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
