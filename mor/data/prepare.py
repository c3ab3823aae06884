"""Tokenise and pack a corpus once; every later call opens what is there.

A corpus is built in a temporary folder beside its place, forced to the disk and renamed, so what
stands under its name is whole. A file lock makes several workers that prepare at once do it once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import logging
import os
import shutil
from pathlib import Path

from ledger.files import sync_to_disk
from mor.config import ConfigError, DataConfig, UserError
from mor.data.fingerprint import fingerprint, is_sharded
from mor.data.known import refuse_left_out
from mor.data.locks import locked_folder
from mor.data.needs import Need, corpus_folder, need_of_tokens
from mor.data.pack import pack
from mor.data.packed import Corpus, DamagedCorpus, open_corpus, seal
from mor.data.sharded import HERE, How, open_shards, prepare_shards

log = logging.getLogger(__name__)

NOTHING = Need()


def prepare(
    data: DataConfig, progress: bool = True, need: Need = NOTHING, how: How = HERE
) -> Corpus:
    """The tokens of `data`, prepared now where they are not there yet.

    A planned run (data.fingerprint) opens the tokens of that fingerprint where they lie; the
    sources are looked at only where they do not. Of a sharded corpus, `need` is prepared and
    what `data.tokens` asks for.

    Raises UserError for a corpus that cannot be had, is too small to split, does not fit on the
    disk, or is another one than the run was planned with.
    """
    try:
        if is_sharded(data):
            return _shards(data, need, dataclasses.replace(how, progress=progress))
        return _packed(data, progress)
    except OSError as error:
        mistake = _disk_mistake(data, error)
        if mistake is None:
            raise
        raise mistake from error


def _shards(data: DataConfig, need: Need, how: How) -> Corpus:
    if data.fingerprint is None:
        data = _as_planned(data)
    refuse_left_out(data)
    if data.tokens is not None:
        need |= need_of_tokens(data, data.tokens)
    need |= need_of_tokens(data, 1)  # a corpus without a window is none
    folder = corpus_folder(data)
    prepare_shards(data, folder, need, how, lambda: _as_planned(data))
    return open_shards(data, folder, need)


def _packed(data: DataConfig, progress: bool) -> Corpus:
    if data.fingerprint is not None:
        refuse_left_out(data)
        with contextlib.suppress(FileNotFoundError, DamagedCorpus):
            return open_corpus(corpus_folder(data))
    data = _as_planned(data)
    refuse_left_out(data)
    folder = corpus_folder(data)
    with contextlib.suppress(FileNotFoundError, DamagedCorpus):
        return open_corpus(folder)
    with locked_folder(folder):
        return _build_unless_there(data, folder, progress)


def _as_planned(data: DataConfig) -> DataConfig:
    """The corpus with the fingerprint that it has here. Raises UserError for other data."""
    actual = fingerprint(data)
    if data.fingerprint not in (None, actual):
        raise UserError(
            f"data.fingerprint={data.fingerprint}: the run was planned with other data than this "
            f"machine has, whose fingerprint is {actual}; {_way_back(data)}, or plan the run again "
            "here"
        )
    return dataclasses.replace(data, fingerprint=actual)


def _way_back(data: DataConfig) -> str:
    return {
        "stdlib": "use the same Python version as the planning machine",
        "files": "copy the planning machine's files to data.paths",
        "hub": "set data.dataset, data.subset, data.revision and data.tokenizer as planned",
    }[data.kind]


def _build_unless_there(data: DataConfig, folder: Path, progress: bool) -> Corpus:
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
        seal(partial, pack(data, str(data.fingerprint), partial, progress))
        os.rename(partial, folder)
        sync_to_disk(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_corpus(folder)


def _disk_mistake(data: DataConfig, error: OSError) -> ConfigError | None:
    """What an OSError means to the user, if it is about the cache folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        sharded = "the shards that are whole are kept"
        whole = "nothing was kept of the unfinished corpus"
        return ConfigError(
            "data.cache_dir",
            data.cache_dir,
            f"the disk is full, and {sharded if is_sharded(data) else whole}",
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
