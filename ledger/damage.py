"""Files that are not what was written: how that is found, and where they are put.

A checkpoint says in `meta.json` what its files are: their sizes, which are looked at whenever
something is planned, and their digests, which are compared when it is used. What is damaged is set
aside under a name that begins with a dot, so that nothing reads it and it can be looked into.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

META = "meta.json"  # of a checkpoint, written last: one without it is not complete
DAMAGED = "damaged"


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def checkpoint_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, by the names and sizes of its files; None: nothing.

    Reads no file but `meta.json`. A checkpoint of an older version says no sizes, only names.
    """
    try:
        meta = json.loads((path / META).read_text())
        names, sizes = dict(meta.get("files", {})), dict(meta.get("sizes", {}))
    except FileNotFoundError:
        return f"{META} is missing"
    except (OSError, ValueError, TypeError, AttributeError):
        return f"{META} cannot be read"
    for name in names:
        try:
            size = os.stat(path / name).st_size
        except OSError:
            return f"{name} is missing"
        if sizes.get(name, size) != size:
            return f"{name} has {size} bytes of {sizes[name]}"
    return None


def set_aside(path: Path) -> Path | None:
    """Rename a damaged file or folder to .damaged-<its name>-<number>; None: it is not there."""
    number = 1
    while (to := path.with_name(f".{DAMAGED}-{path.name}-{number}")).exists():
        number += 1
    with contextlib.suppress(FileNotFoundError):
        path.rename(to)
        return to
    return None
