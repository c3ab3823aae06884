"""Approach 1: the lower envelope of training curves against compute, and the sizes along it.

Source: Hoffmann et al. 2022 (arXiv 2203.15556) section 3.1. Every curve (one size) is interpolated
in log compute; at each of a grid of computes the lowest curve names the best size and its tokens;
then N_opt ~ C^a and D_opt ~ C^b by least squares in log-log over the envelope.

Computes at which the best size is the smallest or largest that is there are an edge, not a
minimum, and are left out of the law. Curves are the finished points (one size at several budgets,
each at its own end of training), or the logged training loss of the runs themselves, which stands
above a finished run's loss wherever the learning rate has not come down yet.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.fits.isoflop import PowerLaw, fit_power_law
from analysis.fits.parametric.laws import Floats
from analysis.fits.resample import percentiles
from analysis.formatting import count, listing, plural

GRID = 200  # computes, evenly spaced in logs over what the curves cover
LEAST_SIZES = 3


@dataclass(frozen=True)
class Envelope:
    """One model. Arrays run along the envelope: compute (FLOPs), best size, its tokens and loss;
    `interior` is False where the best size is an end of those that were trained."""

    model: str
    compute: Floats
    params: Floats
    tokens: Floats
    loss: Floats
    interior: np.ndarray
    params_law: PowerLaw
    tokens_law: PowerLaw
    n_curves: int
    n_points: int
    warnings: tuple[Caution, ...]


def fit_envelope(
    model: str, curves: pd.DataFrame, *, resamples: int = 1000, seed: int = 0
) -> Envelope:
    """The envelope of one model's curves: columns params, tokens, loss, compute (FLOPs).

    The interval draws whole sizes again: points of one curve share a run. Raises AnalysisError
    with fewer than three sizes, or where no two curves overlap in compute.
    """
    sizes = [rows.sort_values("compute") for _, rows in curves.groupby("params", sort=True)]
    usable = [rows for rows in sizes if rows["compute"].nunique() >= 2]
    if len(usable) < LEAST_SIZES:
        raise AnalysisError(
            f"An envelope of {model} needs {LEAST_SIZES} sizes with two or more computes each and "
            f"there {'is' if len(usable) == 1 else 'are'} {len(usable)}: train more sizes, or more "
            "budgets of each."
        )
    starts = np.sort([np.log(rows["compute"].min()) for rows in usable])
    ends = np.sort([np.log(rows["compute"].max()) for rows in usable])
    grid = np.linspace(starts[1], max(starts[1], ends[-2]), GRID)  # two curves at either end
    loss = np.stack([_interpolate(rows, "loss", grid) for rows in usable])  # (sizes, grid)
    tokens = np.stack([_interpolate(rows, "tokens", grid) for rows in usable])
    params = np.array([float(rows["params"].iloc[0]) for rows in usable])
    best, covered = _lowest(loss, np.ones(len(usable), bool))
    if np.count_nonzero(covered) < 2:
        raise AnalysisError(
            f"The curves of {model} do not overlap in compute, so none is lowest: train the sizes "
            "to common budgets."
        )
    warnings = []
    alone = len(sizes) - len(usable)
    if alone:
        warnings.append(
            Caution(
                Code.SIZES_WITHOUT_CURVE,
                f"Left out {plural(alone, 'size')} with one compute: no curve.",
                model,
            )
        )
    interior = covered & _inside(loss, best)
    laws = _laws(np.exp(grid), params, tokens, best, interior)
    if laws is None:
        reason = (
            f"the best size changes {_changes(best, interior)} times among computes "
            "where it is neither the smallest nor the largest there; a law needs one change. "
            f"Sizes: {listing(map(count, params))}."
        )
        warnings += [Caution(Code.NO_EXPONENT, f"No exponent: {reason}", model, reason)]
        params_law, tokens_law = PowerLaw(), PowerLaw()
    else:
        if _changes(best, interior) < 3:
            warnings.append(
                Caution(
                    Code.FEW_BEST_SIZES,
                    f"The exponents rest on {_changes(best, interior) + 1} different best sizes: "
                    "the "
                    "envelope is a staircase, and its slope is loose.",
                    model,
                )
            )
        a, b = _intervals(np.exp(grid), params, tokens, loss, resamples, seed)
        params_law, tokens_law = replace(laws[0], interval=a), replace(laws[1], interval=b)
        if a is None and resamples:
            warnings.append(
                Caution(
                    Code.NO_INTERVAL,
                    "No interval: fewer than half of the resamples have an exponent.",
                    model,
                )
            )
    kept = np.flatnonzero(covered)
    back = int(np.count_nonzero(np.diff(params[best[kept]]) < 0))
    if back:
        warnings.append(
            Caution(
                Code.BEST_SIZE_FALLS,
                f"The best size falls back {back} times as compute grows: the curves differ by "
                "less "
                "than their noise, and the lowest of noisy curves is too low.",
                model,
            )
        )
    return Envelope(
        model,
        np.exp(grid[kept]),
        params[best[kept]],
        np.exp(tokens[best[kept], kept]),
        np.exp(loss[best[kept], kept]),
        interior[kept],
        params_law,
        tokens_law,
        n_curves=len(usable),
        n_points=sum(len(rows) for rows in usable),
        warnings=tuple(warnings),
    )


def _interpolate(rows: pd.DataFrame, column: str, grid: Floats) -> Floats:
    """log of the column at each log compute; NaN outside of the curve."""
    mean = rows.groupby("compute", sort=True)[column].mean()  # seeds of one size count once
    x, y = np.log(mean.index.to_numpy(float)), np.log(mean.to_numpy(float))
    return np.interp(grid, x, y, left=np.nan, right=np.nan)


def _lowest(loss: Floats, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the lowest curve at each compute, and where there were two to choose from."""
    seen = np.where(used[:, None] & np.isfinite(loss), loss, np.inf)
    return seen.argmin(axis=0), np.isfinite(seen).sum(axis=0) >= 2


def _inside(loss: Floats, best: np.ndarray) -> np.ndarray:
    """Whether a smaller and a larger size are there at that compute."""
    there = np.isfinite(loss)
    row = np.arange(len(loss))[:, None]
    smaller, larger = (there & (row < best)).any(axis=0), (there & (row > best)).any(axis=0)
    return np.asarray(smaller & larger)


def _changes(best: np.ndarray, where: np.ndarray) -> int:
    return int(np.count_nonzero(np.diff(best[where])))


def _laws(
    compute: Floats, params: Floats, tokens: Floats, best: np.ndarray, where: np.ndarray
) -> tuple[PowerLaw, PowerLaw] | None:
    if where.sum() < 2 or _changes(best, where) < 1:
        return None
    kept = np.flatnonzero(where)
    sizes, seen = params[best[kept]], np.exp(tokens[best[kept], kept])
    return fit_power_law(compute[kept], sizes), fit_power_law(compute[kept], seen)


def _intervals(
    compute: Floats, params: Floats, tokens: Floats, loss: Floats, resamples: int, seed: int
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    rng = np.random.default_rng(seed)
    found = np.full((resamples, 2), np.nan)
    for number in range(resamples):
        used = np.zeros(len(params), bool)
        used[rng.integers(0, len(params), len(params))] = True
        best, covered = _lowest(loss, used)
        inside = _inside(np.where(used[:, None], loss, np.nan), best)
        laws = _laws(compute, params, tokens, best, covered & inside)
        if laws is not None:
            found[number] = laws[0].exponent, laws[1].exponent
    return percentiles(found[:, 0]), percentiles(found[:, 1])
