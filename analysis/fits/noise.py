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
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.fits.maker import Maker, of_parabolas
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
    """Relative residuals (residuals,) of some points, how they follow the points' errors, the trunk
    of each point, and the table's row of each residual."""

    values: Floats
    maker: Maker
    trunk_of_points: NDArray[np.intp]
    rows: NDArray[np.intp]

    @property
    def trunk(self) -> NDArray[np.intp]:
        """The trunk of each residual's own point."""
        return np.asarray(self.trunk_of_points[self.maker.own])

    @cached_property
    def moments(self) -> "Moments":
        """Sums over the covariance of the residuals."""
        return _moments(self)


@dataclass(frozen=True)
class Moments:
    """Sums over the covariance of residuals: a if every point's noise is its own, b if all of it is
    the trunks'; pairs are residuals of one trunk, no residual with itself."""

    trace_a: float
    trace_b: float
    pairs_a: float
    pairs_b: float
    squares_aa: float
    squares_ab: float
    squares_bb: float


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


def pool(parabolas: Iterable[Parabola]) -> Noise:
    """The noise of parabolas that share no trunk."""
    found = []
    for parabola in parabolas:
        own = np.arange(len(parabola.loss))
        values = parabola.residuals / parabola.level
        found.append(Residuals(values, of_parabolas([parabola], [own], len(own)), own, own))
    return combine(found)


def combine(parts: Sequence[Residuals], least: float = 0.0) -> Noise:
    """One noise for all models, whose errors are independent; trunks share `least` or more."""
    squares = sum(float(part.values @ part.values) for part in parts)
    if sum(part.moments.trace_a for part in parts) < 1e-9:
        return Noise(0.0, 0)
    share = max(least, _share(parts))
    times = spread = 0.0
    for part in parts:
        found, rest = part.moments, 1 - share
        times += rest * found.trace_a + share * found.trace_b
        spread += rest**2 * found.squares_aa + share**2 * found.squares_bb
        spread += 2 * rest * share * found.squares_ab
    return Noise(float(np.sqrt(squares / times)), round(times**2 / spread, 9), share)


def _moments(part: Residuals) -> Moments:
    alone = part.maker.bands(np.arange(len(part.trunk_of_points)))
    together = part.maker.bands(part.trunk_of_points)
    trunk, sums = part.trunk, np.zeros(7)
    for (band, a), (_, b) in zip(alone, together, strict=True):
        same = trunk[band, None] == trunk[None, :]
        trace_a, trace_b = np.trace(a, offset=band.start), np.trace(b, offset=band.start)
        sums += [
            trace_a,
            trace_b,
            a[same].sum() - trace_a,
            b[same].sum() - trace_b,
            np.sum(a * a),
            np.sum(a * b),
            np.sum(b * b),
        ]
    return Moments(*map(float, sums))


def two_moments(parts: Sequence[Residuals]) -> tuple[Floats, Floats] | None:
    """Sum of squares and sum of products within a trunk: what they would be for a variance of 1
    that is a run's own and for one that is its trunk's, (moments, variances), and what they are
    (moments,), both relative to the loss. None where they do not tell the two variances apart."""
    expected, seen = np.zeros((2, 2)), np.zeros(2)
    for part in parts:
        _, number = np.unique(part.trunk, return_inverse=True)
        added = np.bincount(number, weights=part.values)
        squares = float(part.values @ part.values)
        seen += [squares, float(added @ added) - squares]
        m = part.moments
        expected += [[m.trace_a, m.trace_b], [m.pairs_a, m.pairs_b]]
    if abs(np.linalg.det(expected)) < 1e-9 * expected[0, 0] ** 2:
        return None
    return expected, seen


def variances(expected: Floats, seen: Floats) -> Floats:
    """Of a run's own noise and of its trunk's, 0 at least, (2,)."""
    return np.asarray(np.maximum(np.linalg.solve(expected, seen), 0.0))


def _share(parts: Sequence[Residuals]) -> float:
    moments = two_moments(parts)
    if moments is None:
        return 0.0
    alone, together = variances(*moments)
    return float(together / (alone + together)) if alone + together > 0 else 0.0
