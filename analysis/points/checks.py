"""Which rows a fit can use, and tables that must not be fitted: mixed ones, and duplicates."""

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.formatting import compute, count, listing, plural
from analysis.points.table import MAY_BE_ZERO, PointSet, Wanted, curve_of
from ledger.result import BYTE_KEYS, LOSS_KEYS

BYTES = "compare them in bits per byte (isoflop, compare or report with --loss bpb), "


def usable(
    table: pd.DataFrame,
    names: pd.Series,
    shown: pd.DataFrame,
    source: str,
    may_lack: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, list[Caution]]:
    """The rows that a fit can use, and a warning naming the others; `shown`: the needed columns,
    and `may_lack`: of each of their cells, whether it may hold no number.

    Raises AnalysisError where none is left.
    """
    needed = list(shown.columns)
    numbers = table[needed].to_numpy(float)
    zero_is_fine = np.array([column == MAY_BE_ZERO for column in needed])
    good = np.isfinite(numbers) & ((numbers > 0) | (zero_is_fine & (numbers == 0)))
    if may_lack is not None:
        good |= may_lack.to_numpy(bool)
    bad = [
        f"{names.iloc[row]} ({needed[column]} {shown.iloc[row, column]})"
        for row, column in zip(*np.nonzero(~good), strict=True)
    ]
    kept = table[good.all(axis=1)]
    where = f"whose {', '.join(needed)} are not all positive numbers: {listing(bad)}"
    if kept.empty:
        told = f"has only rows {where}" if bad else "has no rows"
        raise AnalysisError(f"{source} {told}; there is nothing to fit.")
    if not bad:
        return kept.reset_index(drop=True), []
    left_out = plural(len(table) - len(kept), "row")
    warning = f"Left out {left_out} of {source} {where}."
    return kept.reset_index(drop=True), [Caution(Code.UNUSABLE_ROWS, warning)]


def checked(points: PointSet, allow_mixed: bool, wanted: Wanted) -> PointSet:
    if not allow_mixed:
        _refuse_mixed(points, "convention", "FLOP conventions")
        if points.loss not in BYTE_KEYS:
            knows_bytes = points.loss in LOSS_KEYS
            _refuse_mixed(points, "data_fingerprint", "data fingerprints", more=knows_bytes)
        known = points.table["code"].notna()  # older results do not have it
        _refuse_mixed(points, "code", "versions of the training code", known)
    _refuse_duplicates(points, list(wanted.identity))
    return _with_corpora_said(points) if points.loss in BYTE_KEYS else points


def _with_corpora_said(points: PointSet) -> PointSet:
    corpora = len(points.distinct("data_fingerprint"))
    if corpora < 2:
        return points
    said = (
        f"Points of {corpora} tokenizers or corpora, each a curve of its own, in bits per byte: of "
        "the same held-out text they compare; of other texts they differ by the text, too."
    )
    return replace(points, warnings=(*points.warnings, Caution(Code.SEVERAL_CORPORA, said)))


def _refuse_mixed(
    points: PointSet,
    column: str,
    noun: str,
    where: pd.Series | slice = slice(None),
    more: bool = False,
) -> None:
    """`more`: bits per byte would compare them."""
    groups = points.table[column][where].fillna("none given").value_counts()
    if len(groups) > 1:
        held = listing(
            f"{value} ({plural(int(number), 'point')})" for value, number in groups.items()
        )
        raise AnalysisError(
            f"{points.source} mixes {noun}, whose numbers do not compare: {held}; "
            f"{BYTES if more else ''}split the points, or pass --allow-mixed."
        )


def _refuse_duplicates(points: PointSet, identity: list[str]) -> None:
    table = points.table.assign(curve=curve_of(points.table))
    repeated = table[table.duplicated(identity, keep=False)]
    if repeated.empty:
        return
    twins = next(iter(repeated.groupby(identity, dropna=False, sort=False)))[1]
    first = twins.iloc[0]
    names = twins["run_id"].where(twins["run_id"].notna(), twins["source"])
    seed = "no seed" if pd.isna(first["seed"]) else f"seed {first['seed']:g}"
    said = count(first["tokens"]) + " tokens"
    where = said if pd.isna(first["budget"]) else f"budget {compute(first['budget'])}"
    raise AnalysisError(
        f"{points.source} holds {len(twins)} points for model {first['curve']}, "
        f"{count(first['params'])} params, {where}, {seed} "
        f"({listing(names)}): keep one of them, or give each its own seed."
    )
