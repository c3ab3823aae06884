"""Documents: the text of a corpus, one string after another, in an order that never changes.

A text file is one document; a row of JSON, JSON lines, parquet or of a dataset on the hub is one.
Empty documents are left out.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mor.config import ConfigError, DataConfig
from mor.data.hub import ROWS, first_line, hub_rows
from mor.data.sources import SourceFile, source_files

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Documents:
    """One pass over a corpus."""

    texts: Iterator[str]
    size: int | None  # bytes of text, roughly; None if nobody knows beforehand


def documents(data: DataConfig) -> Documents:
    """Open the corpus; raises ConfigError (also while reading) for what cannot be read as text."""
    if data.kind == "hub":
        return Documents(_hub_texts(data), None)
    files = source_files(data)
    sizes = [_text_size(file, data) for file in files]
    known = [size for size in sizes if size is not None]
    return Documents(_file_texts(files, data), sum(known) if len(known) == len(sizes) else None)


def _hub_texts(data: DataConfig) -> Iterator[str]:
    for rows in hub_rows(data):
        yield from _column(rows, data.text_field, f"the dataset {data.dataset}")


def _file_texts(files: Sequence[SourceFile], data: DataConfig) -> Iterator[str]:
    for file in files:
        if file.format == "text":
            text = _whole_text(file)
            if text:
                yield text
        else:
            yield from _table_texts(file, data)


def _whole_text(file: SourceFile) -> str:
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from error
    if b"\0" in content or file.compressed:
        raise ConfigError(
            "data.paths",
            file.path,
            "not plain text",
            "name .txt, .jsonl, .json or .parquet files only",
        )
    return content.decode("utf-8", errors="replace")


def _table_texts(file: SourceFile, data: DataConfig) -> Iterator[str]:
    for rows in _table_rows(file, data.text_field):
        yield from _column(rows, data.text_field, str(file.path))


def _table_rows(file: SourceFile, field: str) -> Iterator[pa.Table]:
    import datasets

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it reports what is raised here
    options: dict[str, Any] = {}
    if file.format == "parquet":
        options = {"columns": [field], "batch_size": ROWS}
    try:
        stream = datasets.load_dataset(
            file.format,
            data_files=glob.escape(str(file.path)),
            split="train",
            streaming=True,
            **options,
        )
        yield from stream.with_format("arrow").iter(batch_size=ROWS)
    except StopIteration:
        return  # its word for a file without rows
    except Exception as error:  # of `datasets` or of the parser below it
        raise _unreadable(file, error) from error


def _column(rows: pa.Table, field: str, where: str) -> Iterator[str]:
    if field not in rows.column_names:
        raise _no_column(field, rows.column_names, where)
    for value in rows[field].to_pylist():
        if value is not None and not isinstance(value, str):
            raise ConfigError(
                "data.text_field",
                field,
                f"holds {type(value).__name__} and not text in {where}",
                "name a column of text",
            )
        if value:
            yield value


def _text_size(file: SourceFile, data: DataConfig) -> int | None:
    """Bytes of text in a file, roughly; for parquet, its column is checked on the way."""
    if file.format != "parquet":
        return None if file.compressed else file.path.stat().st_size
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        footer = pq.ParquetFile(file.path).metadata
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise _unreadable(file, error) from error
    columns = footer.schema.to_arrow_schema().names
    if data.text_field not in columns:
        raise _no_column(data.text_field, columns, str(file.path))
    chunks = [
        footer.row_group(group).column(column)
        for group in range(footer.num_row_groups)
        for column in range(footer.num_columns)
    ]
    return sum(
        chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == data.text_field
    )


def _no_column(field: str, known: Sequence[str], where: str) -> ConfigError:
    return ConfigError(
        "data.text_field",
        field,
        f"no such column in {where}",
        f"type data.text_field=<one of {', '.join(known)}>",
    )


def _unreadable(file: SourceFile, error: BaseException) -> ConfigError:
    return ConfigError(
        "data.paths",
        file.path,
        f"cannot be read as {file.format} ({first_line(error)})",
        "fix the file or leave it out",
    )
