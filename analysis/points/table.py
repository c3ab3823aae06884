"""One tidy table of points, whatever they come from: a CSV, the run store, a study or W&B.

Columns: model (what `model=` takes), size, budget (FLOPs under `convention`), params, tokens, loss
(nats per token), seed, convention, data_fingerprint, git_commit, code (git tree of the training
code), run_id, label (what a study calls its variant), curve (what a fit groups by and a figure
names; missing where that is the model, see `curve_of`), source. A cell that the source does not
know is missing (NaN); the numbers that a fit needs never are. A fit that needs more (the parts of a
looped model, the trunk) names the columns that it wants beside these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from analysis.cautions import Caution

NUMBERS = ("params", "tokens", "loss", "budget")
COLUMNS = (
    "model",
    "size",
    "budget",
    "params",
    "tokens",
    "loss",
    "seed",
    "convention",
    "data_fingerprint",
    "git_commit",
    "code",
    "run_id",
    "label",
    "curve",
    "source",
)
# Columns that identify an experiment. Another convention or corpus is another experiment.
IDENTITY = ("curve", "params", "budget", "seed", "convention", "data_fingerprint")
# Numbers that only some fits ask for; of these, only the looped part of a model may be zero.
MORE_NUMBERS = ("n_once", "n_rec", "r")
MAY_BE_ZERO = "n_rec"
LAW_NUMBERS = ("params", "tokens", "loss")
JOINT_NUMBERS = (*LAW_NUMBERS, *MORE_NUMBERS)


@dataclass(frozen=True)
class Wanted:
    """What a fit asks of the points: `numbers` for every point, `names` where the source has them.

    `columns` maps a column of ours to the one that a CSV calls it by.
    """

    numbers: tuple[str, ...] = NUMBERS
    names: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def extra(self) -> tuple[str, ...]:
        """The columns beyond the tidy table's own."""
        return tuple(c for c in (*self.numbers, *self.names) if c not in COLUMNS)

    @property
    def identity(self) -> tuple[str, ...]:
        """Curves have many points of a model: without budgets, tokens separate them."""
        return IDENTITY if "budget" in self.numbers else (*IDENTITY, "tokens")


def curve_of(table: pd.DataFrame) -> pd.Series:
    """The name of each row's curve: `curve` where it is told, else the model."""
    return table["curve"].fillna(table["model"]) if "curve" in table else table["model"]


def tidy(table: pd.DataFrame, extra: Sequence[str] = ()) -> pd.DataFrame:
    """The columns above, `extra` and no others: numbers as floats, names as text or missing."""
    columns = (*COLUMNS, *extra)
    table = table.reindex(columns=list(columns))
    numbers = (*NUMBERS, *MORE_NUMBERS, "seed")
    return table.astype({column: float if column in numbers else object for column in columns})


@dataclass(frozen=True)
class PointSet:
    """The table, and where it is from."""

    table: pd.DataFrame
    source: str
    warnings: tuple[Caution, ...] = ()
    study_folder: Path | None = None
    loss: str = "as given"
    params: str = "as given"

    def distinct(self, column: str) -> list[str]:
        """The different values of a column, in order, without the missing ones."""
        return sorted(str(value) for value in self.table[column].dropna().unique())

    @property
    def convention(self) -> str | None:
        """The FLOP convention of the budgets: one name, or several joined by ` + `."""
        return " + ".join(self.distinct("convention")) or None
