"""Faults inside a process: a disk that fails, a clock that jumps, renames that others see late.

Each is installed in a fork, before the command, by replacing functions of `os`, `io` and `time`.
What happened is counted in a file, which is written without them.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LATE_S = 0.7  # after which a rename is seen by others


class Tally:
    """Counts, across forks, what was injected: one byte for each."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._open, self._write = os.open, os.write

    def add(self) -> None:
        handle = self._open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._write(handle, b".")
        os.close(handle)

    def count(self) -> int:
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0


def failing_disk(root: Path, number: int, at: int, times: int, tally: Tally) -> None:
    """Writes below `root` fail with an error number: `times` of them, from the one `at` on."""
    seen, inside = 0, str(root)

    def fails(path: Any) -> bool:
        nonlocal seen
        try:
            name = os.fspath(path)
        except TypeError:
            return False
        if not str(name).startswith(inside) or "output-" in str(name):
            return False
        seen += 1
        hit = at <= seen < at + times
        if hit:
            tally.add()
        return hit

    def error(path: Any) -> OSError:
        return OSError(number, os.strerror(number), str(path))

    class Raw(io.FileIO):
        """Takes half of what it is given, as a disk does that is full, and then fails."""

        def write(self, data: Any) -> int:
            half = bytes(data)[: len(bytes(data)) // 2]
            super().write(half)
            raise error(self.name)

    real_open = io.open

    def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if not set(mode) & set("wxa+") or not fails(file):
            return real_open(file, mode, *rest, **named)
        if number == errno.EIO and seen % 2:
            raise error(file)
        raw = Raw(file, mode.replace("b", "").replace("t", ""))
        buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, write_through=True)

    def guarded(name: str) -> None:
        real = getattr(os, name)

        def call(path: Any, *rest: Any, **named: Any) -> Any:
            if fails(path):
                raise error(path)
            return real(path, *rest, **named)

        setattr(os, name, call)

    io.open = builtins.open = opened
    for name in ("rename", "replace", "mkdir"):
        guarded(name)
    real_sync, real_pwrite = os.fsync, os.pwrite

    def synced(handle: int) -> None:
        if fails(_name(handle)):
            raise error(_name(handle))
        real_sync(handle)

    def written(handle: int, data: bytes, offset: int) -> int:
        if fails(_name(handle)):
            raise error(_name(handle))
        return real_pwrite(handle, data, offset)

    os.fsync, os.pwrite = synced, written


def _name(handle: int) -> str:
    fileno = handle if isinstance(handle, int) else handle.fileno()
    return os.readlink(f"/proc/self/fd/{fileno}")


def jumping_clock(seed: int, tally: Tally) -> None:
    """`time.time` jumps by up to a day, forwards and backwards, every now and then."""
    chance, real, offset = random.Random(seed), time.time, 0.0

    def now() -> float:
        nonlocal offset
        if chance.random() < 0.02:
            offset = chance.choice((-1, 1)) * 10 ** chance.uniform(0, 5)
            tally.add()
        return real() + offset

    time.time = now


def late_renames(root: Path, journal: Path, tally: Tally) -> None:
    """What others give a new name below `root` is not seen for `LATE_S`, as on NFS.

    Their own renames processes see at once. Claims are left out: they are changed under a file
    lock, and NFS looks anew after it has taken one.
    """
    inside, mine = str(root), os.getpid()
    real_stat, real_open, real_os_open = os.stat, io.open, os.open
    real_list, real_scan = os.listdir, os.scandir
    hidden: dict[str, float] = {}
    read = 0

    def note(target: Any) -> None:
        handle = real_os_open(str(journal), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        line = {"path": str(target), "by": mine, "at": time.monotonic()}
        os.write(handle, json.dumps(line).encode() + b"\n")
        os.close(handle)

    def unseen(path: Any) -> bool:
        nonlocal read
        try:
            name = str(os.fspath(path))
        except TypeError:
            return False
        if not name.startswith(inside):
            return False
        try:
            with real_open(str(journal)) as file:
                file.seek(read)
                lines = file.read()
        except OSError:
            return False
        end = lines.rfind("\n") + 1
        read += len(lines[:end].encode())
        for line in lines[:end].splitlines():
            entry = json.loads(line)
            if entry["by"] != mine:
                hidden[entry["path"]] = entry["at"]
        now = time.monotonic()
        for place, at in list(hidden.items()):
            if now - at > LATE_S:
                del hidden[place]
        late = any(name == place or name.startswith(f"{place}/") for place in hidden)
        if late:
            tally.add()
        return late

    def missing(path: Any) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *rest: Any, **named: Any) -> Any:
            if unseen(path):
                raise missing(path)
            return real(path, *rest, **named)

        return call

    def renamed(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, **named: Any) -> Any:
            try:
                real_stat(target)
                new = False
            except OSError:
                new = True
            name = os.path.basename(str(target))
            if new and str(target).startswith(inside) and not name.startswith((".", "claim")):
                note(target)
            return real(source, target, **named)

        return call

    def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if not set(mode) & set("wxa") and unseen(file):
            raise missing(file)
        return real_open(file, mode, *rest, **named)

    def listed(path: Any = ".") -> list[str]:
        return [name for name in real_list(path) if not unseen(os.path.join(str(path), name))]

    class Scan:
        def __init__(self, path: Any = ".") -> None:
            self._real = real_scan(path)

        def __enter__(self) -> Scan:
            return self

        def __exit__(self, *_: object) -> None:
            self._real.close()

        def __iter__(self) -> Any:
            return (entry for entry in self._real if not unseen(entry.path))

        def __next__(self) -> Any:
            return next(iter(self))

        def close(self) -> None:
            self._real.close()

    os.stat = guarded(real_stat)
    os.rename, os.replace = renamed(os.rename), renamed(os.replace)
    os.listdir, os.scandir = listed, Scan
    io.open = builtins.open = opened
