"""Files that are not what was written: how that is found, and where they are put.

A checkpoint says in `meta.json` what its files are: their sizes, which are looked at whenever
something is planned, and their digests, which are compared when it is used. A result and a plan
have a digest beside them. What is damaged is set aside under a name that begins with a dot, so that
nothing reads it and it can be looked into.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ledger.errors import DamagedFile
from ledger.files import write_atomically

META = "meta.json"  # of a checkpoint, written last: one without it is not complete
DAMAGED = "damaged"
READS = 2  # of a file and its digest: between the two, its writer may have replaced both


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def sealed(meta: dict[str, Any]) -> dict[str, Any]:
    """The contents of `meta.json` with a digest of them."""
    return {**meta, "digest": _digest_of(meta)}


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """`meta.json` of a checkpoint. Raises DamagedFile; one of an older version has no digest."""
    try:
        meta = json.loads((checkpoint / META).read_text())
        digest = meta.pop("digest", None)
        whole = {"progress", "files"} <= meta.keys() <= {"progress", "files", "sizes"}
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedFile(f"{META} is missing") from None
    except (OSError, ValueError, TypeError, AttributeError):
        raise DamagedFile(f"{META} cannot be read") from None
    older = digest is None and "sizes" not in meta
    if not whole or not (older or digest == _digest_of(meta)):
        raise DamagedFile(f"{META} is not what was written")
    return dict(meta)


def _digest_of(meta: dict[str, Any]) -> str:
    text = json.dumps(meta, sort_keys=True)
    return hashlib.blake2b(text.encode()).hexdigest()


def checkpoint_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, by the names and sizes of its files; None: nothing.

    Reads no file but `meta.json`. A checkpoint of an older version says no sizes, only names.
    """
    try:
        meta = read_meta(path)
    except DamagedFile as damage:
        return str(damage)
    sizes = meta.get("sizes", {})
    for name in meta["files"]:
        try:
            size = os.stat(path / name).st_size
        except OSError:
            return f"{name} is missing"
        if sizes.get(name, size) != size:
            return f"{name} has {size} bytes of {sizes[name]}"
    return None


def checkpoint_digests_differ(path: Path) -> bool:
    """Whether a checkpoint's files are not those that were written; reads all of them. Raises
    DamagedFile where `meta.json` itself is damaged."""
    files = read_meta(path)["files"]
    return any(
        not (path / name).is_file() or file_digest(path / name) != digest
        for name, digest in files.items()
    )


def write_digest(file: Path, digest_file: Path) -> None:
    write_atomically(digest_file, file_digest(file) + "\n")


def read_whole(file: Path, digest_file: Path) -> bytes | None:
    """A file that has a digest beside it; None where it is not there. Raises DamagedFile where it
    is not the one whose digest was written."""
    for _ in range(READS):
        try:
            data = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            written = digest_file.read_bytes().strip()
        except OSError:
            return data  # of an older version, or a crash came between the two
        if written == hashlib.blake2b(data).hexdigest().encode():
            return data
    raise DamagedFile(
        f"{file}: not what was written; launch the study again, or, if you edited it yourself, "
        f"delete {digest_file.name}"
    )


def set_aside(path: Path) -> Path | None:
    """Rename a damaged file or folder to .damaged-<its name>-<number>; None: it is not there."""
    number = 1
    while True:
        to = path.with_name(f".{DAMAGED}-{path.name}-{number}")
        if not to.exists():
            try:
                return path.rename(to)
            except FileNotFoundError:
                return None
            except OSError:
                if not to.exists():  # otherwise another process was faster: take the next number
                    raise
        number += 1


def name_before(path: Path) -> Path:
    """The path that something had before it was set aside."""
    return path.with_name(path.name.removeprefix(f".{DAMAGED}-").rpartition("-")[0])


def aside(folder: Path) -> list[Path]:
    """What was set aside in a run's folder."""
    found = [*folder.glob(f".{DAMAGED}-*"), *folder.glob(f"checkpoints/.{DAMAGED}-*")]
    return sorted(found)
