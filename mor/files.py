"""Files that are whole or not there: temporary name, sync, rename."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


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
