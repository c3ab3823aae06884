"""What a corpus says before it is prepared: mistakes that planning can find on this machine.

Nothing is downloaded and nothing is written. Preparing says the same, later; a study of a cluster
would learn it from a job that has waited in a queue.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from mor.config import ConfigError, DataConfig
from mor.data.fingerprint import fingerprint, tokenizer_file
from mor.data.known import known, refuse_left_out, refuse_too_few
from mor.data.needs import bytes_per_token, corpus_folder
from mor.data.opening import BROKEN, Source
from mor.data.pack import training_texts
from mor.data.reading import is_read_whole, read_corpus, read_files, refusal
from mor.data.rows import read_texts, unreadable
from mor.data.sources import (
    FileRefused,
    matching_files,
    named_files,
    refuse_kind,
    text_format,
)
from mor.data.tally import Tally
from mor.data.texts import refuse_binary
from mor.data.tokenizer import load_tokenizer, refuse_vocabulary

FILES = 64  # of a corpus in shards that are looked into, spread evenly over it
START = 2**16  # bytes of a text file


def with_fingerprint(data: DataConfig) -> DataConfig:
    """A corpus with its fingerprint. Raises ConfigError; where files are of kinds that are not
    read, with every file that cannot be read."""
    try:
        return replace(data, fingerprint=fingerprint(data))
    except FileRefused:
        look = read_files if is_read_whole(data) else _look_at
        look(data, named_files(data))
        raise


def refuse_unreadable(corpora: Iterable[DataConfig]) -> None:
    """Raises ConfigError for a planned corpus (data.fingerprint) that is not prepared and whose
    files hold no text under `data.text_field`, are not what their names say, or whose tokenizer has
    more entries than `data.vocab_size`; where `data.tokens` asks for more than there is; and where
    data.on_bad_row=stop and a corpus was prepared without some rows.

    A corpus of whole files is read to its end; of another, the beginnings of some files are.
    """
    for data in corpora:
        if not known(data).exact:  # what was prepared to its end is used by the command that did so
            refuse_too_few(data)
        if corpus_folder(data).exists():
            refuse_left_out(data)
            continue
        if tokenizer_file(data) is not None:
            load_tokenizer(data)
        if is_read_whole(data):
            read_corpus(data)
            if data.tokenizer == "train":
                refuse_vocabulary(data, training_texts(data))
        elif data.kind == "files":
            files = sorted(matching_files(data))
            _look_at(data, files[:: -(-len(files) // FILES)])


def _look_at(data: DataConfig, files: Sequence[Path]) -> None:
    """Raises ConfigError, which names each of the files that cannot be read."""
    mistakes = []
    for path in files:
        try:
            refuse_kind(path)
            status = path.stat()
            _look(str(path), status.st_mtime_ns, status.st_size, data)
        except ConfigError as mistake:
            mistakes.append((str(path), mistake))
    if mistakes:
        raise refusal(data, mistakes, len(files))


@cache
def _look(place: str, changed: int, size: int, data: DataConfig) -> None:
    """One file to its first text: normally that of its first row."""
    source = Source(place, text_format(place))
    if source.format == "text":
        try:
            with source.content() as file:
                text = file.read(START).decode(data.encoding, errors="replace")
        except BROKEN as error:
            raise unreadable(source, error) from error
        refuse_binary(text, source, data.encoding)
        return
    next(read_texts(source, data, Tally()), None)


def refuse_no_room(data: DataConfig, tokens: int) -> None:
    """Raises ConfigError where the disk of `data.cache_dir` does not hold so many more tokens, or
    those that data.max_tokens leaves."""
    tokens = min(tokens, data.max_tokens or tokens)
    folder = Path(data.cache_dir).expanduser().absolute()
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    wanted, free = tokens * bytes_per_token(data.vocab_size), shutil.disk_usage(there).free
    if wanted > free:
        raise ConfigError(
            "data.cache_dir",
            data.cache_dir,
            f"{tokens:,} tokens are {wanted / 1e9:,.1f} GB and {free / 1e9:,.1f} GB are free",
            "type data.cache_dir=<a larger disk> or fewer tokens",
        )
