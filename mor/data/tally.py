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


@dataclass
class Tally:
    """Rows read, and those left out by kind with the place of the first one."""

    stop: bool = False  # data.on_bad_row=stop
    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    places: dict[str, str] = field(default_factory=dict)

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

    def add(self, other: Tally) -> None:
        """Take over what another one has counted."""
        self.rows += other.rows
        self.skipped.update(other.skipped)
        self.places = {**other.places, **self.places}

    def refuse_stop(self) -> None:
        """Raises ConfigError where rows were left out, for data.on_bad_row=stop."""
        if set(self.skipped) - {EMPTY}:
            raise ConfigError(
                "data.on_bad_row",
                "stop",
                f"the corpus was prepared with {self.report()}",
                "fix the rows, or type data.on_bad_row=skip to leave them out",
            )

    def report(self) -> str:
        """One sentence; empty where nothing was left out."""
        if not self.skipped:
            return ""
        kinds = ", ".join(
            f"{count:,} {kind} (first: {self.places[kind]})"
            for kind, count in self.skipped.most_common()
        )
        remedy = "; data.encoding=<name> reads another encoding" * (NOT_TEXT in self.skipped)
        return f"{self.skipped.total():,} of {self.rows:,} rows left out: {kinds}{remedy}"
