"""What a corpus says before it is prepared: mistakes that planning can find on this machine.

Nothing is downloaded and nothing is written. Preparing says the same, later; a study of a cluster
would learn it from a job that has waited in a queue.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from mor.config import ConfigError, DataConfig
from mor.data.fingerprint import tokenizer_file
from mor.data.needs import bytes_per_token, corpus_folder
from mor.data.opening import BROKEN, Source
from mor.data.rows import Tally, read_texts, refuse_binary, unreadable
from mor.data.sources import matching_files, text_format
from mor.data.tokenizer import load_tokenizer

FILES = 64  # that are looked into, spread evenly over the corpus
START = 2**16  # bytes of a text file


def refuse_unreadable(corpora: Iterable[DataConfig]) -> None:
    """Raises ConfigError for a planned corpus (data.fingerprint) that is not prepared and whose
    files hold no text under `data.text_field`, are not what their names say, or whose tokenizer has
    more entries than `data.vocab_size`."""
    for data in corpora:
        if corpus_folder(data).exists():
            continue
        if tokenizer_file(data) is not None:
            load_tokenizer(data)
        if data.kind == "files":
            files = sorted(matching_files(data))
            for path in files[:: -(-len(files) // FILES)]:
                status = path.stat()
                _look(str(path), status.st_mtime_ns, status.st_size, data)


@cache
def _look(place: str, changed: int, size: int, data: DataConfig) -> None:
    """One file to its first text: normally that of its first row."""
    source = Source(place, text_format(place))
    if source.format == "text":
        try:
            with source.content() as file:
                refuse_binary(file.read(START).decode(data.encoding, errors="replace"), source)
        except BROKEN as error:
            raise unreadable(source, error) from error
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
