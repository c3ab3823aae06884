"""Packed tokens on disk: one flat file per split and a description of both.

<cache_dir>/<name>-<fingerprint>/
    train.bin, val.bin   tokens, end to end, in the smallest unsigned type that holds them
    meta.json            `Meta`; written last
    tokenizer.json       unless tokens are bytes
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ledger.files import sync_to_disk
from mor.data.needs import bytes_per_token
from mor.data.tokenizer import FILE as TOKENIZER
from mor.data.tokenizer import Tokenizer, kept_tokenizer

META = "meta.json"
SPLITS = ("train", "val")


class DamagedCorpus(Exception):
    """A folder of packed tokens that is not as it was written; the message says why."""


@dataclass(frozen=True)
class Meta:
    """What is in the two token files."""

    fingerprint: str
    tokenizer: str  # data.tokenizer
    vocab_size: int  # entries of the embedding that fits
    separator: int  # the token after each document
    dtype: str  # of the files: uint8 | uint16 | uint32, little-endian
    train_tokens: int
    val_tokens: int
    train_documents: int
    val_documents: int
    val_bytes: int  # of UTF-8 text: turns nats per token into bits per byte
    skipped: dict[str, int] = field(default_factory=dict)  # rows without text, by kind
    places: dict[str, str] = field(default_factory=dict)  # of the first row skipped, by kind
    replaced: int = 0  # characters of text files that are not in data.encoding


class Tokens(Protocol):
    """Tokens that are read by slices: an array, or those of shards end to end."""

    def __len__(self) -> int: ...

    def __getitem__(self, wanted: slice, /) -> npt.NDArray[np.unsignedinteger]: ...


@dataclass(frozen=True)
class Corpus:
    """Packed tokens, memory-mapped and read-only."""

    folder: Path
    meta: Meta
    train: Tokens  # (meta.train_tokens,)
    val: Tokens  # (meta.val_tokens,), of documents that train has not
    window_tokens: int | None = None  # shuffled together; None: all
    complete: bool = True  # False: more can be prepared

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the tokens were made with."""
        return kept_tokenizer(self.folder)


class TokenWriter:
    """Appends tokens to a new file and counts what went in."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        self.dtype = token_dtype(vocab_size)
        self.tokens = 0
        self.documents = 0
        self.bytes = 0
        self._file = open(path, "xb", buffering=2**20)  # noqa: SIM115 - closed by `close`

    def add(self, tokens: npt.NDArray[np.unsignedinteger], n_bytes: int) -> None:
        """Append one document: tokens (n,), made from `n_bytes` of text."""
        self.extend(tokens)
        self.documents += 1
        self.bytes += n_bytes

    def extend(self, tokens: npt.NDArray[np.unsignedinteger]) -> None:
        """Append more tokens (n,) of the last document."""
        self._file.write(tokens.astype(self.dtype).tobytes())
        self.tokens += len(tokens)

    def close(self) -> None:
        """Hand everything to the system; raises OSError if the disk is full."""
        self._file.close()


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """The smallest type that holds every token number."""
    return np.dtype(f"<u{bytes_per_token(vocab_size)}")


def seal(folder: Path, meta: Meta) -> None:
    """Describe the files in `folder` and force them all to the disk."""
    (folder / META).write_text(json.dumps(dataclasses.asdict(meta), indent=2) + "\n")
    for path in (*folder.iterdir(), folder):
        sync_to_disk(path)


def open_corpus(folder: Path) -> Corpus:
    """Map the packed tokens in `folder`.

    Raises FileNotFoundError if there is no such folder, DamagedCorpus if it is not whole.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        meta = Meta(**json.loads((folder / META).read_text()))
        dtype = token_dtype(meta.vocab_size)
        counts = {"train": int(meta.train_tokens), "val": int(meta.val_tokens)}
        for split in SPLITS:
            size = (folder / f"{split}.bin").stat().st_size
            if counts[split] < 1 or size != counts[split] * dtype.itemsize:
                raise DamagedCorpus(f"{split}.bin has {size} bytes for {counts[split]} tokens")
        if meta.tokenizer != "bytes" and not (folder / TOKENIZER).is_file():
            raise DamagedCorpus(f"{TOKENIZER} is missing")
        train, val = (np.memmap(folder / f"{split}.bin", dtype, mode="r") for split in SPLITS)
    except (OSError, ValueError, TypeError) as error:
        raise DamagedCorpus(f"{type(error).__name__}: {error}") from error
    return Corpus(folder, meta, train, val)
