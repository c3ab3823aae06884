"""Rows read, and those that hold no text: counted by kind, or refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mor.config import ConfigError

EMPTY = "empty"  # a row without a character: left out, not bad
MISSING = "without data.text_field"
NOT_JSON = "not JSON"
NOT_TEXT = "not in data.encoding"
SURROGATES = "with lone surrogates"
REPLACED = "replaced"  # characters of a text file that are not in data.encoding


@dataclass
class Tally:
    """Rows read, and those left out by kind with the place of the first one. A text file is one
    row, and stays one where characters of it are replaced (U+FFFD)."""

    stop: bool = False  # data.on_bad_row=stop
    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    places: dict[str, str] = field(default_factory=dict)
    replaced: int = 0  # characters

    def skip(self, kind: str, where: str) -> None:
        """Count a row without text. Raises ConfigError where bad rows are to stop it."""
        if self.stop and kind != EMPTY:
            raise ConfigError(
                "data.on_bad_row",
                "stop",
                f"{where} is a bad row ({kind})",
                "fix the row, or type data.on_bad_row=skip to leave such rows out",
            )
        self.skipped[kind] += 1
        self.places.setdefault(kind, where)

    def replace(self, characters: int, where: str, encoding: str) -> None:
        """Count what a text file lost. Raises ConfigError where bad rows are to stop it."""
        if not characters:
            return
        if self.stop:
            raise ConfigError(
                "data.on_bad_row",
                "stop",
                f"{where} holds {characters:,} characters that are not in data.encoding={encoding}",
                "fix the file, or type data.on_bad_row=skip to have them replaced (U+FFFD)",
            )
        self.replaced += characters
        self.places.setdefault(REPLACED, where)

    def add(self, other: Tally) -> None:
        """Take over what another one has counted."""
        self.rows += other.rows
        self.replaced += other.replaced
        self.skipped.update(other.skipped)
        self.places = {**other.places, **self.places}

    @property
    def is_bad(self) -> bool:
        """Whether more than empty rows was left out, or something replaced."""
        return bool(self.replaced or set(self.skipped) - {EMPTY})

    def refuse_stop(self) -> None:
        """Raises ConfigError where something is bad, for data.on_bad_row=stop."""
        if self.is_bad:
            raise ConfigError(
                "data.on_bad_row",
                "stop",
                f"the corpus was prepared with {self.report()}",
                "fix the source, or type data.on_bad_row=skip to go on without it",
            )

    def report(self) -> str:
        """One sentence; empty where all is text."""
        said = []
        if self.skipped:
            kinds = ", ".join(
                f"{count:,} {kind} (first: {self.places[kind]})"
                for kind, count in self.skipped.most_common()
            )
            said.append(f"{self.skipped.total():,} of {self.rows:,} rows left out: {kinds}")
        if self.replaced:
            said.append(
                f"{self.replaced:,} characters of text files {NOT_TEXT}, replaced by U+FFFD "
                f"(first: {self.places[REPLACED]})"
            )
        if self.replaced or NOT_TEXT in self.skipped:
            said.append("data.encoding=<name> reads another encoding")
        return "; ".join(said)
