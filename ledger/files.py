"""Files that are either complete or absent (temporary name, sync, rename), and file locks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ledger.errors import LedgerVersionError, MalformedFile


def write_json(path: Path, values: dict[str, Any], sync: bool = True) -> None:
    write_atomically(path, json.dumps(values, indent=1) + "\n", sync)


def write_atomically(path: Path, text: str, sync: bool = True) -> None:
    """Temporary file, fsync, rename. On failure nothing is left behind and `path` is as before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_to_disk(path.parent)


def sync_to_disk(path: Path) -> None:
    """Force a file's content, or a folder's entries (renames within it), to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is no such file. Raises MalformedFile if it is neither."""
    try:
        return json_object(path.read_bytes(), path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def json_object(data: bytes, path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises MalformedFile."""
    try:
        values = json.loads(data)
    except ValueError as error:
        raise MalformedFile(
            f"{path}: not valid JSON ({error}); delete this file and launch the study again"
        ) from None
    if not isinstance(values, dict):
        raise MalformedFile(
            f"{path}: not a JSON object; delete this file and launch the study again"
        )
    return values


def check_schema(values: Any, schema: int, path: Path) -> None:
    """Raises LedgerVersionError where a file was not written with this schema."""
    found = values.get("schema") if isinstance(values, dict) else None
    if found != schema:
        raise LedgerVersionError(
            f"{path}: written with schema {found}, this version reads schema {schema}; "
            "use another store with runs_dir=<new folder> or the version that wrote it"
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is made if need be; waits for its holder."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _same_file(handle, path):
                yield
                return
        finally:
            os.close(handle)  # releases the lock, too


def _same_file(handle: int, path: Path) -> bool:
    """Whether the locked file is still the one of that name, not one that was deleted meanwhile."""
    try:
        return os.fstat(handle).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
