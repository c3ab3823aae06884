"""One writer per run: an exclusive claim with a heartbeat; a stale claim is taken over.

The claim is a small file in the run's folder that names its holder. It is changed only under a
file lock that is held for milliseconds. It is stale when its holder is known to be dead (same
machine, no such process; or an earlier start of the very job that asks, which a requeue has ended)
or has not touched the file for `STALE_S`.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from ledger.files import locked
from ledger.jobs import NO_JOB, Job
from ledger.processes import start_mark, start_time

STALE_S = 180.0
TORN_S = 40.0  # the same for one that cannot be read: its holder would have rewritten it by then


class LostClaim(Exception):
    """Another process has taken the run over: this one must stop writing at once."""


class Claim:
    """The claim of one run or trunk; a holder renews it with every heartbeat.

    `job`: the job that this process belongs to, as its backend says.
    """

    def __init__(self, folder: Path, job: Job = NO_JOB) -> None:
        self._job = job
        self._file = folder / "claim.json"
        self._lock = folder / ".claim.lock"
        self._token: str | None = None

    def acquire(self) -> bool:
        """Take the claim, or a stale one over. False: a live process holds it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._lock):
            if self._read() is not None and not self._stale():
                return False
            self._token = uuid.uuid4().hex
            self._write()
            return True

    def _write(self) -> None:
        holder = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": start_time(os.getpid()),
            "mark": start_mark(os.getpid()),
            "job": self._job.job_id,
            "restarts": self._job.restarts,
        }
        temporary = self._file.with_suffix(f".{self._token}.tmp")
        try:
            temporary.write_text(json.dumps(holder))
            temporary.rename(self._file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def renew(self) -> None:
        """Say that the holder lives. Raises LostClaim where it is no longer the holder."""
        holder = self._read()
        if holder == {}:  # damaged: no other process holds it
            with locked(self._lock):
                if self._read() == {}:
                    self._write()
            return
        if holder is None or holder.get("token") != self._token:
            raise LostClaim(f"{self._file.parent.name} was taken over by another process")
        os.utime(self._file)

    def release(self) -> None:
        """Give the claim back, if it is still ours."""
        with locked(self._lock):
            holder = self._read()
            if holder is not None and holder.get("token") == self._token:
                self._file.unlink(missing_ok=True)
        self._token = None

    def held(self) -> bool:
        """Whether a live process holds it."""
        return self._read() is not None and not self._stale()

    def holder_is_dead(self) -> bool:
        """Whether there is no holder, or one that is known to be dead."""
        holder = self._read()
        if holder is None or self._requeued_since(holder):
            return True
        return holder.get("host") == socket.gethostname() and not _alive(holder)

    def _stale(self) -> bool:
        try:
            age = self._now() - self._file.stat().st_mtime
        except FileNotFoundError:
            return True
        return self.holder_is_dead() or age > (STALE_S if self._read() else TORN_S)

    def _now(self) -> float:
        """The file system's time, as the claim's own: hosts' clocks differ, and jump."""
        try:
            os.utime(self._lock)
            return self._lock.stat().st_mtime
        except OSError:
            return time.time()

    def _read(self) -> dict[str, Any] | None:
        try:
            values = json.loads(self._file.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def _requeued_since(self, holder: dict[str, Any]) -> bool:
        job = self._job
        same = job.job_id is not None and holder.get("job") == job.job_id
        return same and holder.get("restarts", 0) < job.restarts


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the process lives; a reused pid has another start time.

    Ticks since the boot come first: times since 1970 shift with the machine's clock.
    """
    try:
        pid, mark = int(holder["pid"]), holder.get("mark")
        now = start_mark(pid)
        if mark is not None and now is not None:
            return mark == now
        started = start_time(pid)
        return started is not None and abs(started - float(holder.get("started", started))) < 2.0
    except (KeyError, ValueError, TypeError):
        return False
