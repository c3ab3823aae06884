"""Output of the sub-commands: JSON on stdout, or an error on stderr and exit code 2."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from analysis.cautions import Caution
from analysis.errors import AnalysisError
from ledger.errors import disk_trouble


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn an AnalysisError, and what a disk refuses, into a sentence and exit code 2."""
    try:
        yield
    except OSError as error:
        if not (sentence := disk_trouble(error)):
            raise
        typer.echo(f"error: {sentence}", err=True)
        raise typer.Exit(2) from error
    except AnalysisError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def print_json(content: Mapping[str, Any]) -> None:
    """Valid JSON: a NaN is a mistake of ours, never a number for a script. Beside `warnings`, their
    codes (`analysis.cautions.Code`) in the same order."""
    said = content.get("warnings")
    if said is not None:
        codes = [str(one.code) if isinstance(one, Caution) else None for one in said]
        content = {**content, "warning_codes": codes}
    typer.echo(json.dumps(content, indent=2, allow_nan=False, default=_as_text))


def _as_text(value: object) -> str:
    if isinstance(value, Caution):
        return value.text
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_warnings(warnings: Iterable[Caution]) -> None:
    """One line each, on stdout with the numbers that they are about."""
    for warning in warnings:
        typer.echo(f"warning: {warning}")


def print_drawn(files: Iterable[Path], as_json: bool) -> None:
    """Where the figures are; on stderr beside JSON."""
    for file in files:
        typer.echo(f"drawn: {file}", err=as_json)


def parse_columns(text: str | None) -> dict[str, str]:
    """`params=N,tokens=D` as {"params": "N", "tokens": "D"}.

    Raises AnalysisError for names that we do not have, and for a column that is mapped twice.
    """
    from analysis.points.table import COLUMNS, MORE_NUMBERS, NUMBERS

    ours = (*COLUMNS[:-1], *MORE_NUMBERS, "trunk")
    pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    for name, equals, theirs in pairs:
        if not equals or not theirs.strip():
            raise AnalysisError(
                f"--columns holds {name!r}, which is not OURS=THEIRS: write it as "
                "params=N,tokens=D."
            )
        if name.strip() not in ours:
            raise AnalysisError(
                f"--columns names {name.strip()!r}, which is not one of ours: {', '.join(ours)}."
            )
    columns = [(name.strip(), theirs.strip()) for name, _, theirs in pairs]
    numbers = (*NUMBERS, *MORE_NUMBERS)
    for twice in (
        [name for name, _ in columns],
        [theirs for name, theirs in columns if name in numbers],
    ):
        again = next((name for name in twice if twice.count(name) > 1), None)
        if again is not None:
            raise AnalysisError(f"--columns maps {again} twice: leave one of them out.")
    return dict(columns)
