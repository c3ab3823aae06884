"""Which documents are held out for validation: those whose text hashes to a small number.

So the split does not depend on the order of the documents, and equal texts are on the same side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mor.config import ConfigError, DataConfig
from mor.data.texts import Text, text_digest


def share(text: Text) -> float:
    """Where a document stands in [0, 1); below data.val_fraction it is held out."""
    return int.from_bytes(text_digest(text), "big") / 2**48


@dataclass
class Split:
    """Sorts documents into training and validation, and knows what would have split them."""

    val_fraction: float
    smallest: float = math.inf  # share among the documents seen
    largest: float = -math.inf

    def holds_out(self, text: Text) -> bool:
        """Whether a document belongs to validation."""
        value = share(text)
        self.smallest = min(self.smallest, value)
        self.largest = max(self.largest, value)
        return value < self.val_fraction

    def working_fraction(self) -> float | None:
        """A short number that leaves documents on both sides; None if they are all the same."""
        for digits in range(1, 16):
            if self.smallest >= self.val_fraction:  # nothing was held out: raise it
                value = math.ceil(self.smallest * 10**digits) / 10**digits
            else:
                value = math.floor(self.largest * 10**digits) / 10**digits
            if self.smallest < value <= self.largest:
                return value
        return None


def no_split(data: DataConfig, split: Split, train: int, val: int) -> ConfigError:
    """What is wrong with a corpus of so many training and held-out documents, one of them 0."""
    setting, value = {
        "stdlib": ("data.kind", "stdlib"),
        "files": ("data.paths", f"[{','.join(data.paths)}]"),
        "hub": ("data.dataset", str(data.dataset)),
    }[data.kind]
    n_documents = train + val
    if n_documents == 0:
        return ConfigError(setting, value, "holds no text", "name a corpus that does")
    fraction = split.working_fraction()
    if fraction is None:
        return ConfigError(
            setting,
            value,
            f"{n_documents} document(s) cannot be split into training and validation",
            "name two different ones at least (a text file is one, a row of JSON lines is one)",
        )
    lacking = "training" if val else "validation"
    return ConfigError(
        "data.val_fraction",
        data.val_fraction,
        f"leaves no {lacking} text among {n_documents} documents",
        f"type data.val_fraction={fraction!r}",
    )
