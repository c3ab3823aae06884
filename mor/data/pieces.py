"""A sharded corpus as a sequence of pieces of its files: each becomes one shard.

Files are taken in groups, in the order of the digests of their names; the pieces of a group are
mixed by digest, too. So a stretch of the sequence mixes many files, whatever order they were
published in, and the sequence depends on the source and on data.shard_mb only. A group's pieces
are looked up when the sequence reaches it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ledger.files import write_json
from mor.config import ConfigError, DataConfig
from mor.data.corpus import group_sizes
from mor.data.manifest import ManifestWriter
from mor.data.opening import BROKEN, Source
from mor.data.origins import Origins
from mor.data.rows import Piece, no_column, unreadable
from mor.data.sources import text_format

GROUP = 32  # files whose pieces are mixed
ASKING = 8  # files looked into at once
MB = 2**20


@dataclass(frozen=True)
class Work:
    """What one shard is made of."""

    shard: int
    name: str  # of the file, in its listing
    piece: Piece
    source: Source


class Sequence:
    """The pieces of a listing of files, in order. `places` says where each file can be read."""

    def __init__(self, data: DataConfig, places: dict[str, str], folder: Path) -> None:
        self._data, self._places, self._folder = data, places, folder
        names = sorted(places, key=_digest)
        self._groups = [names[i : i + GROUP] for i in range(0, len(names), GROUP)]

    def __iter__(self) -> Iterator[Work]:
        shard = 0
        for number, names in enumerate(self._groups):
            for name, piece in self._pieces(number, names):
                yield Work(shard, name, piece, self._source(name))
                shard += 1

    def _pieces(self, number: int, names: list[str]) -> list[tuple[str, Piece]]:
        """The pieces of a group in order, kept beside the shards."""
        kept = self._folder / f"pieces-{number:05d}.json"
        try:
            return [
                (name, Piece(first, last))
                for name, first, last in json.loads(kept.read_text())["pieces"]
            ]
        except (OSError, ValueError, TypeError, KeyError):
            pass
        with ThreadPoolExecutor(ASKING) as pool:
            cut = list(pool.map(lambda name: pieces_of(self._source(name), self._data), names))
        found = [(name, piece) for name, parts in zip(names, cut, strict=True) for piece in parts]
        found.sort(key=lambda one: _digest(f"{one[0]}:{one[1].first}"))
        ManifestWriter(self._folder).read_from(Origins(self._data, self._places).sizes(names))
        write_json(kept, {"pieces": [[name, piece.first, piece.last] for name, piece in found]})
        return found

    def _source(self, name: str) -> Source:
        if name not in self._places:
            raise ConfigError(
                "data.paths",
                ",".join(self._data.paths),
                f"a file that {self._folder.name} was prepared from is not among them",
                "restore it as it was",
            )
        place = self._places[name]
        return Source(place, text_format(place))


def pieces_of(source: Source, data: DataConfig) -> list[Piece]:
    """Where a file is cut: at row groups of parquet, by bytes where it is JSON lines, else nowhere.

    Raises ConfigError for a file that cannot be read.
    """
    most = data.shard_mb * MB
    try:
        if source.format == "parquet":
            return _row_groups(source, data, most)
        if source.format == "json" and not source.compression:
            return _stretches(source, most)
    except BROKEN as error:
        raise unreadable(source, error) from error
    return [Piece()]


def _row_groups(source: Source, data: DataConfig, most: int) -> list[Piece]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    with source.raw() as raw, pq.ParquetFile(raw) as file:
        columns = file.schema_arrow.names
        if data.text_field not in columns:
            raise no_column(data.text_field, columns, source.place)
        sizes = group_sizes(file.metadata, data.text_field)
    pieces, first, size = [], 0, 0
    for group, more in enumerate(sizes):
        if size and size + more > most:
            pieces.append(Piece(first, group))
            first, size = group, 0
        size += more
    return [*pieces, Piece(first, len(sizes))] if sizes else []


def _stretches(source: Source, most: int) -> list[Piece]:
    with source.raw() as file:
        is_list = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
    size = source.size()
    if is_list or size <= most:
        return [Piece()]
    ends = [*range(most, size, most), size]
    return [Piece(end - most if end != size else ends[-2], end) for end in ends]


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
