"""Losses of a CSV: nats per token, or refused, or said.

Guessing tokens uniformly costs ln(vocabulary) nats, 12.5 for the largest in use (262,144): above it
stand perplexities, sums over a text and logarithms gone wrong.
"""

import re

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.formatting import listing

MOST = 13.0  # nats per token
PERPLEXITY = re.compile(r"ppl|perplexity", re.IGNORECASE)
BITS = re.compile(r"bpb|bpc|bpt|bits", re.IGNORECASE)


def check_loss(table: pd.DataFrame, column: str, logged: bool, source: str) -> list[Caution]:
    """A caution where the column's name says bits. Raises AnalysisError where the loss cannot be in
    nats per token.

    `table` needs finite losses and names in `source`; `logged`: the logarithm is taken already.
    """
    remedy = f"give nats per token; of a perplexity type --columns 'loss=ln({column})'"
    if PERPLEXITY.search(column) and not logged:
        raise AnalysisError(f"{source}: the column {column} holds perplexities: {remedy}.")
    high = np.flatnonzero(table["loss"].to_numpy(float) > MOST)
    if high.size:
        rows = [
            f"{name.rpartition(', ')[2]} ({loss:g})"
            for name, loss in table.iloc[high][["source", "loss"]].itertuples(index=False)
        ]
        raise AnalysisError(
            f"{source}: the column {column} holds losses above {MOST:g}, more than guessing costs: "
            f"{listing(rows, 3)}: {remedy}; leave a diverged run out."
        )
    if not BITS.search(column):
        return []
    text = (
        f"Losses of {source} are in bits by their column's name ({column}): what is printed "
        "as nats is in that unit. Exponents, sizes and multipliers do not depend on it."
    )
    return [Caution(Code.LOSS_IN_BITS, text)]
