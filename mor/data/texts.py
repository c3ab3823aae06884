"""Documents: strings, and long text files that are read in parts and never held as a whole.

A text file is one document, whatever its size. Above LONG bytes it is decoded in parts, once to
know its digest and what it loses to its encoding, and once more for its tokens.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mor.config import ConfigError, DataConfig
from mor.data.opening import Source

LONG = 2**24  # bytes of a text file that is held as a whole, at most
PART = 2**20  # bytes of a part
REPLACED = 1e-3  # share of characters that a text file may lose to another encoding
UNKNOWN = "\ufffd"


@dataclass(frozen=True)
class LongText:
    """A document in parts, which can be read again."""

    parts: Callable[[], Iterator[str]]
    n_bytes: int  # of UTF-8
    digest: bytes  # as `text_digest`


Text = str | LongText


def size_of(text: Text) -> int:
    """Bytes of UTF-8."""
    return text.n_bytes if isinstance(text, LongText) else len(text.encode())


def text_digest(text: Text) -> bytes:
    """Six bytes by which a document is sorted into training and validation."""
    if isinstance(text, LongText):
        return text.digest
    return hashlib.blake2b(text.encode(), digest_size=6).digest()


def decoded(content: Iterable[bytes], data: DataConfig) -> Iterator[tuple[str, int]]:
    """The text of a file's blocks as one decoding gives it, with U+FFFD for what is not text, and
    how often that stands for something else. Raises LookupError or UnicodeError for an encoding
    that cannot be read in parts."""
    make = codecs.getincrementaldecoder(data.encoding)
    decoder, bare = make("replace"), make("ignore")
    for block, final in _ended(content):
        state = decoder.getstate()
        text = decoder.decode(block, final)
        lost = text.count(UNKNOWN)
        if lost:  # the text may spell some itself
            bare.setstate(state)
            lost -= bare.decode(block, final).count(UNKNOWN)
        yield text, lost


def _ended(content: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    for block in content:
        yield block, False
    yield b"", True


def long_text(source: Source, data: DataConfig) -> tuple[LongText, int]:
    """A text file in parts, and the characters that it loses. Raises ConfigError for one that is
    no text, what `mor.data.opening.BROKEN` names, and what `decoded` raises."""
    n_characters = n_bytes = lost = 0
    digest = hashlib.blake2b(digest_size=6)
    for part, lost_here in decoded(blocks(source), data):
        refuse_binary(part, source, data.encoding)
        content = part.encode()
        digest.update(content)
        n_characters += len(part)
        n_bytes += len(content)
        lost += lost_here
    refuse_encoding(lost, n_characters, source, data)

    def parts() -> Iterator[str]:
        return (part for part, _ in decoded(blocks(source), data) if part)

    return LongText(parts, n_bytes, digest.digest()), lost


def short_text(content: bytes, source: Source, data: DataConfig) -> tuple[str, int]:
    """The same for one that is held as a whole."""
    text = content.decode(data.encoding, errors="replace")
    refuse_binary(text, source, data.encoding)
    lost = text.count(UNKNOWN)
    if lost:  # the text may spell some itself
        lost -= content.decode(data.encoding, errors="ignore").count(UNKNOWN)
    refuse_encoding(lost, len(text), source, data)
    return text, lost


def blocks(source: Source) -> Iterator[bytes]:
    """The bytes of a file, decompressed, PART at a time."""
    with source.content() as file:
        while block := file.read(PART):
            yield block


def refuse_binary(text: str, source: Source, encoding: str) -> None:
    """Raises ConfigError for content that is not text."""
    if "\0" in text:
        raise ConfigError(
            "data.paths",
            source.place,
            f"binary: it holds zero bytes, which no text has in data.encoding={encoding}",
            "leave it out, or for text in UTF-16 type data.encoding=utf-16",
        )


def refuse_encoding(lost: int, n_characters: int, source: Source, data: DataConfig) -> None:
    """Raises ConfigError for a user's file that loses many characters."""
    if data.kind != "stdlib" and lost > REPLACED * n_characters:
        likely = "cp1251, latin-1 or the like" if data.encoding == "utf-8" else "utf-8"
        raise ConfigError(
            "data.encoding",
            data.encoding,
            f"{lost / n_characters:.1%} of the characters of {source.place} cannot be read in it",
            f"type data.encoding={likely}",
        )
