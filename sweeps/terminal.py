"""What sweeps prints: texts as they stand.

Paths, settings and errors hold brackets and colons, which rich would take for markup and emoji:
`data.paths=[corpus/*.txt]` would lose its value.
"""

from __future__ import annotations

from typing import IO

from rich.console import Console
from rich.text import Text


def plain_console(file: IO[str] | None = None, width: int | None = None) -> Console:
    return Console(file=file, width=width, markup=False, emoji=False)


def marked(word: str, rest: str) -> Text:
    """A word in red and the rest of a line."""
    return Text.assemble((word, "red"), f" {rest}")
