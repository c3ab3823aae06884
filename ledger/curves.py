"""Learning curves of a run or trunk: what its metrics.jsonl says of the loss.

The training loss is noisy and long: it is kept as means over windows of log compute. Validations on
the way are kept one by one. A file is read on from where the last reading stopped, so that a page
that is drawn every minute costs what was written meanwhile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ledger.folder import RunFolder
from ledger.metrics import VALIDATION, lines_of, read_line

WINDOWS_A_DECADE = 24  # of FLOPs


@dataclass
class Curve:
    """Losses in nats per token against FLOPs spent, under the run's own convention."""

    sums: dict[int, tuple[int, float, float]] = field(default_factory=dict)  # n, FLOPs, loss
    validations: list[dict[str, Any]] = field(default_factory=list)  # lines with spent, val_*
    at: int = 0  # bytes read
    damaged: int = 0  # lines that are left out

    @property
    def training(self) -> list[tuple[float, float]]:
        """(FLOPs, mean loss) of each window, in order."""
        return [(x / n, y / n) for _, (n, x, y) in sorted(self.sums.items())]

    def validation(self, key: str = VALIDATION) -> list[tuple[float, float]]:
        """(FLOPs, loss) of each validation on the way."""
        found = [(one["spent"], one[key]) for one in self.validations if _numbers(one, key)]
        return sorted(found)

    def read_on(self, folder: RunFolder) -> Curve:
        """Take in the whole lines that were written since; a damaged one is left out."""
        try:
            with folder.metrics_file.open("rb") as file:
                if (
                    file.seek(0, 2) < self.at
                ):  # another file: the run was restarted from the beginning
                    self.sums, self.validations, self.at, self.damaged = {}, [], 0, 0
                file.seek(self.at)
                data = file.read()
        except FileNotFoundError:
            return self
        self.at += data.rfind(b"\n") + 1
        for line in lines_of(data):
            self._take(line)
        return self

    def _take(self, line: bytes) -> None:
        values = read_line(line)
        if values is None:
            self.damaged += 1
        elif _numbers(values, VALIDATION):
            self.validations.append(values)
        elif _numbers(values, "loss"):
            spent, loss = float(values["spent"]), float(values["loss"])
            window = math.floor(WINDOWS_A_DECADE * math.log10(spent))
            n, x, y = self.sums.get(window, (0, 0.0, 0.0))
            self.sums[window] = n + 1, x + spent, y + loss


def _numbers(values: dict[str, Any], key: str) -> bool:
    """Whether FLOPs and loss are there, finite and positive."""
    pair = values.get("spent"), values.get(key)
    return all(isinstance(v, int | float) and 0 < v < math.inf for v in pair)
