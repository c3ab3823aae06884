"""SHA-256 digests of files, remembered between calls.

Planning asks for the fingerprint of a corpus every time, so a digest is kept in
`<cache_dir>/digests.json` for as long as the file's size and modification time stay what they were.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

# A file written again within one tick of the clock keeps its time stamp: digests of files that are
# younger than this are not remembered (seconds).
SETTLED_S = 2.0

_SAVING = threading.Lock()  # threads add to what others have saved

Known = dict[str, tuple[int, int, str]]  # absolute path -> size in bytes, mtime in ns, digest


def file_digests(paths: Sequence[Path], cache_dir: Path, threads: int = 1) -> list[str]:
    """The SHA-256 of each file in hexadecimal, in the order of `paths`.

    Raises OSError if a file cannot be read; a cache that cannot be read or written is done without.
    """
    store = cache_dir / "digests.json"
    known = _load(store)
    fresh: Known = {}
    settled_ns = time.time_ns() - int(SETTLED_S * 1e9)

    def digest_of(path: Path) -> str:
        key = os.path.abspath(path)
        stat = os.stat(path)
        size, mtime_ns, digest = known.get(key, (-1, -1, ""))
        if (size, mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if stat.st_mtime_ns < settled_ns:
                fresh[key] = (stat.st_size, stat.st_mtime_ns, digest)
        return digest

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(digest_of, paths))
    else:
        found = [digest_of(path) for path in paths]
    if fresh:
        with suppress(OSError), _SAVING:
            _save(store, {**_load(store), **fresh})
    return found


def _load(store: Path) -> Known:
    try:
        entries = json.loads(store.read_text())
        return {
            path: (int(size), int(mtime), str(digest))
            for path, (size, mtime, digest) in entries.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _save(store: Path, known: Known) -> None:
    store.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=store.parent, prefix=".digests-")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(known, file)
        os.replace(temporary, store)
    except BaseException:
        os.unlink(temporary)
        raise
