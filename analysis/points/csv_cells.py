"""The cells of a CSV file as texts: encoding, separator, header and the length of each row.

Nothing is guessed that a reader could not check: the encodings are UTF-8 and, with its mark,
UTF-16; the separator is the one that the header uses; a row has as many cells as the header, apart
from empty ones at its end, which may be left out.
"""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.errors import AnalysisError

SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Cells:
    """Header and rows, stripped of blanks, each row as long as the header."""

    separator: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]  # where each row begins in the file, from 1


def read_cells(path: Path) -> Cells:
    """Raises AnalysisError for another encoding, broken quoting and rows of another length."""
    text = _decoded(path)
    separator = _separator(text)
    rows, lines = _split(text, separator, path)
    if not rows:
        raise AnalysisError(f"{path} cannot be read as CSV (it is empty): fix it.")
    header, *body = rows
    while header and not header[-1] and all(_blank(row[len(header) - 1 :]) for row in body):
        header = header[:-1]
    fitted = [_fitted(row, header, line, path) for row, line in zip(body, lines[1:], strict=True)]
    return Cells(separator, tuple(header), tuple(fitted), tuple(lines[1:]))


def _decoded(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise AnalysisError(f"{path} cannot be read as CSV ({error.strerror}): fix it.") from error
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + raw[: error.start].count(b"\n")
        where = "its end" if wide else f"line {line}"
        raise AnalysisError(
            f"{path} cannot be read as CSV ({where} is not {error.encoding.upper()} text): save it "
            "as UTF-8."
        ) from error
    if "\0" in text:
        raise AnalysisError(f"{path} cannot be read as CSV (it holds NUL bytes): save it as UTF-8.")
    return text


def _separator(text: str) -> str:
    """The one that splits the first line that is not blank into the most cells."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", first)
    return max(SEPARATORS, key=bare.count)


def _split(text: str, separator: str, path: Path) -> tuple[list[list[str]], list[int]]:
    """The rows that are not blank, and the line that each begins in."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    rows, lines, begins = [], [], 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not _blank(cells):
                rows.append(cells)
                lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise AnalysisError(
            f"{path} cannot be read as CSV (line {begins}: {error}): fix it."
        ) from error
    return rows, lines


def _fitted(row: list[str], header: Sequence[str], line: int, path: Path) -> tuple[str, ...]:
    surplus = row[len(header) :]
    if not _blank(surplus):
        remedy = "give every row the columns of the header"
        if len(row) == len(header) + 1:
            remedy += ", or the first column a name, or quote a number that holds the separator"
        raise AnalysisError(
            f"{path}, line {line} has {len(row)} cells and the header {len(header)} "
            f"({', '.join(header)}): {remedy}."
        )
    return tuple(row[: len(header)] + [""] * (len(header) - len(row)))


def _blank(cells: Sequence[str]) -> bool:
    return not any(cells)
