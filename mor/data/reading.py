"""A corpus of whole files, read without being prepared: what is wrong with it, what it holds."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path

from mor.config import ConfigError, DataConfig
from mor.data.fingerprint import is_sharded
from mor.data.opening import Source
from mor.data.progress import reporting
from mor.data.rows import read_texts
from mor.data.sources import refuse_kind, source_files, text_format
from mor.data.split import Split, no_split
from mor.data.tally import Tally
from mor.data.texts import size_of

SHOWN = 50  # files that a refusal names
LONG = 2**28  # bytes of files: more are read with a progress bar


@dataclass(frozen=True)
class Reading:
    """What a corpus holds; tokens are those of `data.tokenizer=bytes`."""

    train: int
    val: int
    tally: Tally = field(default_factory=Tally)


def is_read_whole(data: DataConfig) -> bool:
    """Whether planning can read all that preparing reads: not a corpus in shards, nor one that
    data.max_tokens cuts at a place that the tokenizer decides."""
    return not is_sharded(data) and (data.max_tokens is None or data.tokenizer == "bytes")


@cache
def read_corpus(data: DataConfig) -> Reading:
    """Every text of a planned corpus (data.fingerprint) of whole files, as preparing reads it.

    Raises ConfigError, which names every file that cannot be read, or for a corpus that cannot be
    split.
    """
    return read_files(data, [file.path for file in source_files(data)])


def read_files(data: DataConfig, files: Iterable[Path]) -> Reading:
    """The same for files that may be of kinds that are not read, in this order."""
    return _Reader(data).read([Source(str(path), text_format(path)) for path in files])


class _Reader:
    def __init__(self, data: DataConfig) -> None:
        self._data = data
        self._limit = data.max_tokens or math.inf
        self._split = Split(data.val_fraction)
        self._tokens = [0, 0]  # of bytes: training, held out
        self._documents = [0, 0]
        self._tally = Tally(data.on_bad_row == "stop")

    def read(self, sources: Sequence[Source]) -> Reading:
        mistakes = []
        with reporting(f"reading {self._data.name}", _is_long(sources)) as report:
            for number, source in enumerate(sources):
                try:
                    self._one(source)
                except ConfigError as mistake:
                    mistakes.append((source.place, mistake))
                if self._tokens[0] >= self._limit:
                    break
                report(number / len(sources), sum(self._tokens))
        if mistakes:
            raise refusal(self._data, mistakes, len(sources))
        if not all(self._documents):
            raise no_split(self._data, self._split, *self._documents)
        train, val = self._tokens
        return Reading(train, val, self._tally)

    def _one(self, source: Source) -> None:
        refuse_kind(source.place)
        for text in read_texts(source, self._data, self._tally):
            held_out = self._split.holds_out(text)
            self._documents[held_out] += 1
            self._tokens[held_out] += size_of(text) + 1
            if self._tokens[0] >= self._limit:
                self._tokens[0] = int(self._limit)
                return


def _is_long(sources: Iterable[Source]) -> bool:
    sizes = (os.path.getsize(source.place) for source in sources)
    return any(total > LONG for total in accumulate(sizes))


def refusal(
    data: DataConfig, mistakes: Iterable[tuple[str, ConfigError]], n_files: int
) -> ConfigError:
    """One mistake as it is; of several, a sentence with each file and its reason."""
    found = sorted(mistakes, key=lambda one: one[0])
    if len(found) == 1:
        return found[0][1]
    settings = {mistake.setting for _, mistake in found}
    setting = settings.pop() if len(settings) == 1 else "data.paths"
    value = getattr(data, setting.removeprefix("data."))
    said = ", ".join(f"{place} ({_reason(mistake)})" for place, mistake in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ConfigError(
        setting,
        f"[{','.join(value)}]" if isinstance(value, tuple) else value,
        f"{len(found)} of {n_files} files cannot be read: {said}{more}",
        "fix these files or leave them out of data.paths",
    )


def _reason(mistake: ConfigError) -> str:
    if mistake.setting == "data.paths":
        return mistake.problem
    return f"{mistake.setting}={mistake.value}: {mistake.problem}"
