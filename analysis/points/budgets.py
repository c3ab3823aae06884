"""Budgets of a CSV against its params and tokens: units, and FLOPs as achieved, not as planned.

Training spends about 6 N D FLOPs, a forward pass a third of it (Kaplan et al. 2020, sec. 2.1).
Heads of tiny models, attention over long sequences and shared weights move that by a factor of ten
or so; a unit that is not the one expected moves it by a thousand or more.
"""

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.formatting import compute, count, listing, plural

USUAL = (0.1, 30.0)  # C / (6 N D) that needs no word
POSSIBLE = (1 / 300, 300.0)  # beyond it a unit is wrong
ONE_ROW = 100.0  # of one row against the file's median
LOG_FLOPS = 50.0  # no budget in FLOPs is below it, every logarithm of one is
NEAR = 0.02  # relative distance of two budgets that are one, achieved
WIDEST = 0.05  # of all that are one
REMEDY = (
    "give plain numbers of parameters, tokens and FLOPs, or their factor, as in "
    "--columns params=1e6*params,tokens=1e9*tokens (10^params for logarithms)"
)


def check_units(table: pd.DataFrame, source: str) -> list[Caution]:
    """A caution where C is unusual for 6 N D. Raises AnalysisError where a unit must be wrong.

    `table` needs finite params, tokens and budget (FLOPs) above zero, and names in `source`.
    """
    n, d, c = (table[name].to_numpy(float) for name in ("params", "tokens", "budget"))
    with np.errstate(over="ignore"):
        ratio = c / (6 * n * d)
        logs = np.abs(c - n - d - np.log10(6))
    median = float(np.median(ratio))
    if median < USUAL[0] and c.max() < LOG_FLOPS and np.median(logs) < 1:
        raise AnalysisError(
            f"{source} holds logarithms (budget {c[0]:g} for {n[0]:g} params and {d[0]:g} tokens): "
            f"{REMEDY}."
        )
    typical = int(np.argmin(np.abs(np.log(ratio / median))))
    told = (
        f"budget {compute(c[typical])} for {count(n[typical])} params and {count(d[typical])} "
        f"tokens, which is {median:.2g} x 6ND"
    )
    if not POSSIBLE[0] < median < POSSIBLE[1]:
        raise AnalysisError(f"{source} mixes units ({told}): {REMEDY}.")
    odd = np.flatnonzero(np.abs(np.log(ratio / median)) > np.log(ONE_ROW))
    if odd.size:
        rows = [f"{table['source'].iloc[row]} ({ratio[row]:.2g} x 6ND)" for row in odd]
        raise AnalysisError(
            f"{source} mixes units: {listing(rows, 3)}, where the median row has a budget of "
            f"{median:.2g} x 6ND: give every row the same units."
        )
    if USUAL[0] <= median <= USUAL[1]:
        return []
    return [Caution(Code.UNUSUAL_COMPUTE, f"Check the units of {source}: {told}; else {REMEDY}.")]


def group_achieved(
    table: pd.DataFrame, source: str, *, needed: bool = True
) -> tuple[pd.DataFrame, list[Caution]]:
    """The table with budgets that are nearly the same made one, their geometric mean; and a word.

    Raises AnalysisError where they are a chain without gaps, so that no grouping is right. A fit
    that does without budgets (not `needed`) takes runs that are spread over compute: there a chain
    stays as it is, and so do budgets that hardly repeat once they are grouped.
    """
    budgets = table["budget"].to_numpy(float)
    budgets = budgets[np.isfinite(budgets) & (budgets > 0)]
    values = np.unique(budgets)
    groups = np.split(values, 1 + np.flatnonzero(np.diff(values) > NEAR * values[:-1]))
    if len(groups) >= len(values):
        return table, []
    chain = next((group for group in groups if group[-1] > (1 + WIDEST) * group[0]), None)
    if not needed and (chain is not None or 2 * len(groups) > len(budgets)):
        return table, []
    if chain is not None:
        raise AnalysisError(
            f"{source} has {plural(len(chain), 'budget')} from {compute(chain[0])} to "
            f"{compute(chain[-1])} without a gap, which are no isoFLOP budgets: give the planned "
            "budget of each row in a column, and name it with --columns budget=<column>."
        )
    table = table.copy()
    largest, means = 0.0, []
    for group in groups:
        rows = table["budget"].isin(group)
        mean = (
            float(np.exp(np.log(table.loc[rows, "budget"]).mean())) if len(group) > 1 else group[0]
        )
        largest = max(largest, float(np.abs(group / mean - 1).max()))
        table.loc[rows, "budget"] = mean
        means.append(mean)
    text = (
        f"Budgets of {source} read as achieved FLOPs: {len(values)} values taken as "
        f"{plural(len(groups), 'budget')}, each the mean of its rows (at most {100 * largest:.2g} "
        f"% away): {listing(map(compute, means))}."
    )
    return table, [Caution(Code.GROUPED_BUDGETS, text)]
