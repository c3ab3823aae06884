"""Tokenise and pack a corpus once; every later call opens what is there.

A corpus is built in a temporary folder beside its place, forced to the disk and renamed, so what
stands under its name is whole. A file lock makes several workers that prepare at once do it once.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ledger.files import sync_to_disk
from mor.config import ConfigError, DataConfig, UserError
from mor.data.fingerprint import fingerprint
from mor.data.pack import pack
from mor.data.packed import Corpus, DamagedCorpus, open_corpus, seal

log = logging.getLogger(__name__)


def prepare(data: DataConfig, progress: bool = True) -> Corpus:
    """The packed corpus of `data`, built now if it is not there yet.

    A planned run (data.fingerprint) opens the packed corpus of that fingerprint where it lies; the
    sources are looked at only where it does not.

    Raises UserError for a corpus that cannot be had, is too small to split, does not fit on the
    disk, or is another one than the run was planned with.
    """
    cache = Path(data.cache_dir).expanduser()
    if data.fingerprint is not None:
        with contextlib.suppress(FileNotFoundError, DamagedCorpus):
            return open_corpus(cache / f"{data.name}-{data.fingerprint}")
    actual = fingerprint(data)
    if data.fingerprint not in (None, actual):
        raise UserError(
            f"data.fingerprint={data.fingerprint}: the run was planned with other data than this "
            f"machine has, whose fingerprint is {actual}; {_way_back(data)}, or plan the run again "
            "here"
        )
    folder = cache / f"{data.name}-{actual}"
    with contextlib.suppress(FileNotFoundError, DamagedCorpus):
        return open_corpus(folder)
    try:
        with _lock(folder):
            return _build_unless_there(data, actual, folder, progress)
    except OSError as error:
        mistake = _disk_mistake(data, error)
        if mistake is None:
            raise
        raise mistake from error


def _way_back(data: DataConfig) -> str:
    return {
        "stdlib": "use the same Python version as the planning machine",
        "files": "copy the planning machine's files to data.paths",
        "hub": "set data.dataset, data.subset, data.revision and data.tokenizer as planned",
    }[data.kind]


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=1)
    except Timeout:
        log.warning("another process is preparing %s; waiting for it", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build_unless_there(data: DataConfig, actual: str, folder: Path, progress: bool) -> Corpus:
    try:
        return open_corpus(folder)
    except FileNotFoundError:
        pass
    except DamagedCorpus as damage:
        log.warning("%s is damaged (%s) and is prepared again", folder, damage)
        shutil.rmtree(folder)
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a builder that was killed
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        seal(partial, pack(data, actual, partial, progress))
        os.rename(partial, folder)
        sync_to_disk(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_corpus(folder)


def _disk_mistake(data: DataConfig, error: OSError) -> ConfigError | None:
    """What an OSError means to the user, if it is about the cache folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConfigError(
            "data.cache_dir",
            data.cache_dir,
            "the disk is full, and nothing was kept of the unfinished corpus",
            "free space, type data.cache_dir=<a larger disk> or a smaller data.max_tokens",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return ConfigError(
            "data.cache_dir",
            data.cache_dir,
            f"cannot be written ({error.strerror}: {error.filename})",
            "type data.cache_dir=<a folder of yours>",
        )
    return None
