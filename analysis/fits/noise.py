"""The noise of a study, from residuals of parabolas, and how much of it a trunk's runs share.

Budgets of a size branch off one training trunk and inherit its luck. Their residuals then repeat,
so that a study of three budgets estimates the noise hardly better than one of them, and Student's t
with all spare points is too narrow (0.895 of 0.95 with four sizes at a share of 0.9). The share is
estimated from products of residuals of one trunk at different budgets; the degrees of freedom
follow by Satterthwaite (1946) from the covariance of all residuals. Few residuals estimate it worst
where it matters: trunk noise that happens to be small makes both the noise and its share look
small. So where trunks are named it is taken as 0.7 at least (docs/coverage.md).

A trunk is what the column `trunk` says, else the runs of one model, size and seed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.fits.parabola import Floats, Parabola
from analysis.points.table import curve_of

LEAST_SHARE = 0.7  # of named trunks; holds 93 to 98 % of the gaps at true shares of 0 to 0.9


@dataclass(frozen=True)
class Noise:
    """Standard deviation of one run about its parabola as a share of the loss, the spare points
    that it rests on (none: no interval), and the share of its variance that a trunk has."""

    relative: float
    degrees_of_freedom: float
    share: float = 0.0

    @property
    def known(self) -> bool:
        """Whether any point is to spare."""
        return self.degrees_of_freedom > 0


@dataclass(frozen=True)
class Residuals:
    """Relative residuals (residuals,) of some points, `maker` (residuals, points) how they follow
    the points' errors, the trunk of each residual's own point and of each point, and the table's
    row of each residual."""

    values: Floats
    maker: Floats
    trunk: NDArray[np.intp]
    trunk_of_points: NDArray[np.intp]
    rows: NDArray[np.intp]


def trunks(table: pd.DataFrame) -> NDArray[np.intp]:
    """The number of each run's trunk, (runs,). Runs alike in model, size, budget and seed are
    repeats: each belongs to a trunk of its own."""
    keys = pd.DataFrame({"curve": curve_of(table), "params": table["params"]})
    keys["seed"] = table.get("seed", np.nan)
    names = ["curve", "params", "seed"]
    again = keys.assign(budget=table["budget"]).groupby([*names, "budget"], dropna=False)
    keys["repeat"] = again.cumcount()
    codes = keys.groupby([*names, "repeat"], dropna=False, sort=False).ngroup().to_numpy()
    if "trunk" in table:
        named = pd.factorize(curve_of(table).astype(str) + " " + table["trunk"].astype(str))[0]
        codes = np.where(table["trunk"].notna(), len(table) + named, codes)
    return np.asarray(codes, np.intp)


def least_share(table: pd.DataFrame) -> float:
    """What a trunk's runs share of the noise at least: nothing unless trunks of several runs are
    named."""
    if "trunk" not in table:
        return 0.0
    named = pd.DataFrame({"curve": curve_of(table), "trunk": table["trunk"]}).dropna()
    return LEAST_SHARE if named.duplicated().any() else 0.0


def residual_maker(parabola: Parabola) -> Floats:
    """What takes losses to residuals, (points, points)."""
    return np.asarray(np.eye(len(parabola.loss)) - parabola.design @ parabola.inverse)


def pool(parabolas: Iterable[Parabola]) -> Noise:
    """The noise of parabolas that share no trunk."""
    found = []
    for parabola in parabolas:
        own = np.arange(len(parabola.loss))
        values = parabola.residuals / parabola.level
        found.append(Residuals(values, residual_maker(parabola), own, own, own))
    return combine(found)


def combine(parts: Sequence[Residuals], least: float = 0.0) -> Noise:
    """One noise for all models, whose errors are independent; trunks share `least` or more."""
    own = [part.maker @ part.maker.T for part in parts]
    shared = [_shared(part) for part in parts]
    squares = sum(float(part.values @ part.values) for part in parts)
    if sum(np.trace(matrix) for matrix in own) < 1e-9:
        return Noise(0.0, 0)
    share = max(least, _share(parts, own, shared, squares))
    covariances = [(1 - share) * a + share * b for a, b in zip(own, shared, strict=True)]
    times = float(sum(np.trace(matrix) for matrix in covariances))
    spread = float(sum(np.sum(matrix**2) for matrix in covariances))
    return Noise(float(np.sqrt(squares / times)), round(times**2 / spread, 9), share)


def _shared(part: Residuals) -> Floats:
    """Covariance of the residuals if all noise were the trunks'."""
    _, number = np.unique(part.trunk_of_points, return_inverse=True)
    member = (number[:, None] == np.arange(number.max() + 1)).astype(float) if len(number) else None
    summed = part.maker @ member if member is not None else part.maker
    return np.asarray(summed @ summed.T)


def _share(
    parts: Sequence[Residuals], own: list[Floats], shared: list[Floats], squares: float
) -> float:
    """From two moments: the sum of squares, and that of products within a trunk."""
    moments, found = np.zeros((2, 2)), np.array([squares, 0.0])
    for part, a, b in zip(parts, own, shared, strict=True):
        same = part.trunk[:, None] == part.trunk[None, :]
        np.fill_diagonal(same, False)
        found[1] += part.values @ (same @ part.values)
        moments += [[np.trace(a), np.trace(b)], [np.sum(same * a), np.sum(same * b)]]
    if abs(np.linalg.det(moments)) < 1e-9 * moments[0, 0] ** 2:
        return 0.0
    alone, together = np.maximum(np.linalg.solve(moments, found), 0.0)
    return float(together / (alone + together)) if alone + together > 0 else 0.0
