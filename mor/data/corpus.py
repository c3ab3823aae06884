"""Documents: the text of files, one after another, in an order that never changes.

A text file is one document; a row of JSON, JSON lines or parquet is one. Empty documents are left
out, and rows without text, which are counted (`mor.data.rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mor.config import DataConfig
from mor.data.opening import Source
from mor.data.rows import no_column, read_texts, unreadable
from mor.data.sources import SourceFile, source_files
from mor.data.tally import Tally
from mor.data.texts import Text

if TYPE_CHECKING:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Documents:
    """One pass over a corpus."""

    texts: Iterator[Text]
    size: int | None  # bytes of text, roughly; None where it is not known beforehand
    tally: Tally = field(default_factory=Tally)  # of the rows read so far


def documents(data: DataConfig) -> Documents:
    """Open the corpus; raises ConfigError (also while reading) for what cannot be read as text."""
    files = source_files(data)
    sizes = [_text_size(file, data) for file in files]
    known = [size for size in sizes if size is not None]
    tally = Tally(stop=data.on_bad_row == "stop")
    size = sum(known) if len(known) == len(sizes) else None
    return Documents(_texts(files, data, tally), size, tally)


def _texts(files: Sequence[SourceFile], data: DataConfig, tally: Tally) -> Iterator[Text]:
    for file in files:
        yield from read_texts(_source(file), data, tally)


def _source(file: SourceFile) -> Source:
    return Source(str(file.path), file.format)


def _text_size(file: SourceFile, data: DataConfig) -> int | None:
    """Bytes of text in a file, roughly; for parquet, its column is checked on the way."""
    if file.format != "parquet":
        return None if file.compressed else file.path.stat().st_size
    import pyarrow.parquet as pq

    try:
        footer = pq.ParquetFile(file.path).metadata
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise unreadable(_source(file), error) from error
    columns = footer.schema.to_arrow_schema().names
    if data.text_field not in columns:
        raise no_column(data.text_field, columns, str(file.path))
    return sum(group_sizes(footer, data.text_field))


def group_sizes(footer: pq.FileMetaData, text_field: str) -> list[int]:
    """Bytes of text in each row group of a parquet file, before compression."""
    chunks = [
        [footer.row_group(group).column(column) for column in range(footer.num_columns)]
        for group in range(footer.num_row_groups)
    ]
    return [
        sum(c.total_uncompressed_size for c in group if c.path_in_schema == text_field)
        for group in chunks
    ]
