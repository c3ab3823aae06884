"""What a folder of shards holds. Standard library only: planning reads it.

<cache_dir>/<name>-<fingerprint>/
    source.json          the files of the corpus, in the state in which they are read
    tokenizer.json       unless tokens are bytes
    manifest.jsonl       a line for each shard that is whole, in the order in which they were made,
                         and for the files that they were made from
    shards/000123.bin    its training tokens, then its held-out ones
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ledger.files import sync_to_disk

MANIFEST = "manifest.jsonl"
SOURCE = "source.json"
SHARDS = "shards"


@dataclass(frozen=True)
class Shard:
    """A line of the manifest."""

    shard: int  # its place in the sequence
    name: str  # of the file that it was made from
    first: int  # of the piece of that file
    last: int | None
    rows: int
    train_tokens: int
    val_tokens: int
    train_documents: int
    val_documents: int
    train_bytes: int  # of UTF-8 text
    val_bytes: int
    sha256: str  # of its file
    skipped: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)  # of the first row skipped, by kind
    replaced: int = 0  # characters of text files that are not in data.encoding

    @property
    def tokens(self) -> int:
        return self.train_tokens + self.val_tokens


@dataclass(frozen=True)
class Origin:
    """A file of the source, as it was when it was read."""

    size: int  # bytes
    sha256: str | None = None  # None: not known, as of files that were only cut

    def may_be(self, other: Origin) -> bool:
        """Whether both may be one file."""
        unknown = self.sha256 is None or other.sha256 is None
        return self.size == other.size and (unknown or self.sha256 == other.sha256)


@dataclass(frozen=True)
class Manifest:
    """The shards of a folder by their place in the sequence."""

    shards: dict[int, Shard]
    total: int | None  # shards of the whole corpus, once they are known
    origins: dict[str, Origin] = field(default_factory=dict)  # by name; older folders have none
    dropped: dict[int, Shard] = field(default_factory=dict)  # damaged, and not made again yet

    def prefix(self) -> list[Shard]:
        """The shards from the first one on, up to the first that is missing."""
        found: list[Shard] = []
        while len(found) in self.shards:
            found.append(self.shards[len(found)])
        return found

    @property
    def complete(self) -> bool:
        """Whether the whole corpus is there."""
        return self.total is not None and len(self.prefix()) == self.total


def shard_file(folder: Path, number: int) -> Path:
    return folder / SHARDS / f"{number:06d}.bin"


def read_manifest(folder: Path) -> Manifest:
    """What the manifest says; a line that was cut off by a crash does not count."""
    shards: dict[int, Shard] = {}
    origins: dict[str, Origin] = {}
    dropped: dict[int, Shard] = {}
    total = None
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for line in (folder / MANIFEST).read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                if "total" in entry:
                    total = int(entry["total"])
                elif "without" in entry:  # of versions that noted damage
                    if (number := int(entry["without"])) in shards:
                        dropped[number] = shards.pop(number)
                elif "origins" in entry:
                    for name, one in entry["origins"].items():
                        if one[1] or name not in origins:  # a digest says more than a size
                            origins[name] = Origin(*one)
                else:
                    shard = Shard(**entry)
                    shards[shard.shard] = shard
                    dropped.pop(shard.shard, None)
    return Manifest(shards, total, origins, dropped)


class ManifestWriter:
    """Appends to a manifest; each line is on the disk when its call returns."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / MANIFEST

    def add(self, shard: Shard) -> None:
        self._append(dataclasses.asdict(shard))

    def complete(self, total: int) -> None:
        """The corpus has so many shards."""
        self._append({"total": total})

    def read_from(self, origins: Mapping[str, Origin]) -> None:
        """What files of the source are, by their names in its listing."""
        found = {name: [origin.size, origin.sha256] for name, origin in origins.items()}
        if found:
            self._append({"origins": found})

    def _append(self, entry: dict[str, object]) -> None:
        new = not self._path.exists()
        with open(self._path, "ab") as file:
            # a line that a crash cut off is ended first
            file.write(b"\n" + json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_to_disk(self._path.parent)
