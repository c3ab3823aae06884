"""The texts of a piece of a file, row by row, and a count of the rows that hold none.

A value is text or it is not: a number among texts, a null, a row without the column, a line that
is not JSON, bytes that are not text in `data.encoding` and lone surrogates are counted by kind and
left out (`data.on_bad_row=skip`) or refused with their place (`stop`). Other columns are never
looked at. A file in which no row holds text under `data.text_field` is refused, and one of lines
of which none is JSON.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from mor.config import ConfigError, DataConfig
from mor.data.hub import first_line
from mor.data.json_list import entries
from mor.data.opening import BROKEN, HUB, Source
from mor.data.tally import EMPTY, MISSING, NOT_JSON, NOT_TEXT, SURROGATES, Tally
from mor.data.texts import LONG, Text, blocks, long_text, short_text

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

ROWS = 256  # of a parquet file, read at once
# bytes of JSON that is parsed as a whole; longer lists are read by their entries
LONGEST_OBJECT = 64 * 2**20


@dataclass(frozen=True)
class Piece:
    """A part of a file that is read on its own: row groups of parquet, bytes of JSON lines.

    Lines belong to the piece in which they begin. `last` is exclusive; None: the whole file.
    """

    first: int = 0
    last: int | None = None


WHOLE = Piece()


def read_texts(
    source: Source, data: DataConfig, tally: Tally, piece: Piece = WHOLE
) -> Iterator[Text]:
    """The texts of a piece, in order.

    Raises ConfigError for a file that cannot be read as its format or whose rows hold no text.
    """
    if source.format == "text":
        return _whole_text(source, data, tally)
    own = Tally(tally.stop)
    rows = _parquet if source.format == "parquet" else _json
    return _checked(rows(source, data, own, piece), source, data, own, tally)


def _checked(
    texts: Iterator[str], source: Source, data: DataConfig, own: Tally, tally: Tally
) -> Iterator[str]:
    found = False
    for text in texts:
        found = True
        yield text
    if not found and own.rows:
        wrong = [
            kind
            for kind in own.skipped
            if kind not in (EMPTY, "null", NOT_TEXT, SURROGATES, NOT_JSON)
        ]
        if len(wrong) == 1 and own.skipped[wrong[0]] == own.rows and wrong[0] != MISSING:
            raise ConfigError(
                "data.text_field",
                data.text_field,
                f"holds {wrong[0]} and not text in {source.place}",
                "name a column of text",
            )
    tally.add(own)


def _value(value: Any, tally: Tally, where: str) -> str | None:
    """The text of a row; None, and it is counted, where it has none."""
    if isinstance(value, str):
        if not value:
            tally.skip(EMPTY, where)
            return None
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                tally.skip(SURROGATES, where)
                return None
        return value
    tally.skip("null" if value is None else type(value).__name__, where)
    return None


# -- text --------------------------------------------------------------------------------------


def _whole_text(source: Source, data: DataConfig, tally: Tally) -> Iterator[Text]:
    text: Text
    try:
        with source.content() as file:
            content = file.read(LONG + 1)
            if len(content) > LONG:
                try:
                    text, lost = long_text(source, data)
                except (LookupError, UnicodeError):  # read as a whole only, as UTF-16 without mark
                    text, lost = short_text(content + file.read(), source, data)
            else:
                text, lost = short_text(content, source, data)
    except BROKEN as error:
        raise unreadable(source, error) from error
    tally.rows += 1
    tally.replace(lost, source.place, data.encoding)
    if text:
        yield text
    else:
        tally.skip(EMPTY, source.place)


# -- JSON --------------------------------------------------------------------------------------


def _json(source: Source, data: DataConfig, tally: Tally, piece: Piece) -> Iterator[str]:
    keys: dict[str, None] = {}
    broken: NotJson | None = None
    for where, row in _json_rows(source, data, tally, piece):
        tally.rows += 1
        if row is NOT_DECODED:
            tally.skip(NOT_TEXT, where)
        elif isinstance(row, NotJson):
            broken = broken or row
            tally.skip(NOT_JSON, where)
        elif not isinstance(row, dict):
            tally.skip(f"not an object ({type(row).__name__})", where)
        elif data.text_field not in row:
            keys |= dict.fromkeys(row)
            tally.skip(MISSING, where)
        else:
            text = _value(row[data.text_field], tally, where)
            if text is not None:
                yield text
    if tally.rows and tally.skipped[MISSING] == tally.rows:
        raise no_column(data.text_field, list(keys), source.place)
    if broken is not None and tally.skipped[NOT_JSON] == tally.rows:
        raise broken.refused(source, tally.places[NOT_JSON].rpartition(", ")[2])


NOT_DECODED = object()
LINE = "{}\n[]"  # the same bytes in every encoding whose lines end in the byte of a line's end


@dataclass(frozen=True)
class NotJson:
    """A line that cannot be parsed."""

    reason: str

    def refused(self, source: Source, where: str) -> ConfigError:
        return ConfigError(
            "data.paths",
            source.place,
            f"cannot be read as json ({where}: {self.reason})",
            "fix the file or leave it out",
        )


def _json_rows(
    source: Source, data: DataConfig, tally: Tally, piece: Piece
) -> Iterator[tuple[str, Any]]:
    """Each row with its place."""
    try:
        with source.content() as file:
            if piece.first:
                file.seek(piece.first - 1)
                file.readline()
                yield from _lines(file, file.tell(), source, data, piece)
                return
            start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
            if start[:1] == b"[" or _is_open_object(start):
                yield from _parsed_whole(source, data)
                return
        with source.content() as file:
            yield from _lines(file, 0, source, data, piece)
    except BROKEN as error:
        raise unreadable(source, error) from error


def _is_open_object(start: bytes) -> bool:
    """Whether a file begins with an object that goes on in the next line."""
    line = start.split(b"\n", 1)[0].strip()
    return line == b"{"


def _lines(
    file: IO[bytes], position: int, source: Source, data: DataConfig, piece: Piece
) -> Iterator[tuple[str, Any]]:
    if not LINE.encode(data.encoding).endswith(LINE.encode()):
        raise ConfigError(
            "data.encoding",
            data.encoding,
            f"JSON is read line by line, which {source.place} cannot be in this encoding",
            "convert its JSON files to utf-8 and leave data.encoding out",
        )
    in_bytes = piece.first > 0
    number = 0
    while piece.last is None or position < piece.last:
        line = file.readline()
        if not line:
            return
        number += 1
        where = f"{source.place}, " + (f"byte {position}" if in_bytes else f"line {number}")
        if position == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")
        position += len(line)
        if line.strip():
            yield where, _parsed(line, data)


def _parsed(line: bytes, data: DataConfig) -> Any:
    try:
        text = line.decode(data.encoding)
    except UnicodeDecodeError:
        return NOT_DECODED
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return NotJson(first_line(error))


def _parsed_whole(source: Source, data: DataConfig) -> Iterator[tuple[str, Any]]:
    """The entries of a list, or the one object of a file."""
    with source.content() as file:
        content = file.read(LONGEST_OBJECT + 1)
    if len(content) > LONGEST_OBJECT:
        if content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"[":
            raise ConfigError(
                "data.paths",
                source.place,
                f"a JSON object of more than {LONGEST_OBJECT // 2**20} MB, which has to be held",
                "write its rows as JSON lines",
            )
        del content
        yield from _entry_by_entry(source, data)
        return
    found = _parsed(content.removeprefix(b"\xef\xbb\xbf"), data)
    if isinstance(found, NotJson):
        raise found.refused(source, "the file")
    if found is NOT_DECODED:
        yield source.place, found
        return
    for number, row in enumerate(found if isinstance(found, list) else [found], 1):
        yield f"{source.place}, entry {number}", row


def _entry_by_entry(source: Source, data: DataConfig) -> Iterator[tuple[str, Any]]:
    def parts() -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(data.encoding)()
        for number, block in enumerate(blocks(source)):
            yield decoder.decode(block.removeprefix(b"\xef\xbb\xbf") if not number else block)
        yield decoder.decode(b"", True)

    try:
        for _ in parts():  # the whole file is in the encoding, or none of it counts
            pass
    except UnicodeDecodeError:
        yield source.place, NOT_DECODED
        return
    except LookupError:
        reason = f"more than {LONGEST_OBJECT // 2**20} MB cannot be read in data.encoding"
        raise NotJson(reason).refused(source, "the file") from None
    number = 0
    try:
        for number, row in enumerate(entries(parts()), 1):
            yield f"{source.place}, entry {number}", row
    except (ValueError, RecursionError) as error:
        reason = f"{first_line(error)} behind entry {number}"
        raise NotJson(reason).refused(source, "the file") from error


# -- parquet -----------------------------------------------------------------------------------


def _parquet(source: Source, data: DataConfig, tally: Tally, piece: Piece) -> Iterator[str]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    field_name = data.text_field
    try:
        with source.raw() as raw, pq.ParquetFile(raw, pre_buffer=False) as file:
            names = file.schema_arrow.names
            if field_name not in names:
                raise no_column(field_name, names, source.place)
            last = file.num_row_groups if piece.last is None else piece.last
            row = sum(file.metadata.row_group(g).num_rows for g in range(piece.first))
            groups = list(range(piece.first, last))
            for batch in file.iter_batches(ROWS, row_groups=groups, columns=[field_name]):
                for value in _values(batch.column(0)):
                    row += 1
                    tally.rows += 1
                    where = f"{source.place}, row {row}"
                    if value is NOT_DECODED:
                        tally.skip(NOT_TEXT, where)
                        continue
                    text = _value(value, tally, where)
                    if text is not None:
                        yield text
    except BROKEN as error:  # ArrowInvalid is a ValueError
        raise unreadable(source, error) from error


def _values(column: pa.Array) -> Sequence[Any]:
    import pyarrow as pa

    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_decoded(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _decoded(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return NOT_DECODED


# -- mistakes ----------------------------------------------------------------------------------


def no_column(field_name: str, known: Sequence[str], where: str) -> ConfigError:
    return ConfigError(
        "data.text_field",
        field_name,
        f"no such column in {where}",
        f"type data.text_field=<one of {', '.join(known)}>",
    )


class HubFailed(ConfigError):
    """The hub stopped answering while a file was read; it may be tried again."""


def unreadable(source: Source, error: BaseException) -> ConfigError:
    if source.place.startswith(HUB):
        return HubFailed(
            "data.dataset",
            source.place,
            f"cannot be read from the hub ({first_line(error)})",
            "type the same command again: what is prepared is kept",
        )
    return ConfigError(
        "data.paths",
        source.place,
        f"cannot be read as {source.format} ({first_line(error)})",
        "fix the file or leave it out",
    )
