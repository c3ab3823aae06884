"""How residuals follow the errors of the points, without a matrix of points by points.

A fit of few coefficients leaves of a point's error the error itself less a sum over coefficients:
M = S - L R, where S picks each residual's own point and `left` (residuals, coefficients) and
`right` (coefficients, points) are thin. Sums over M M' are taken a band of rows at a time: memory
is linear in points, and time is points^2 x coefficients.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.fits.parabola import Floats, Parabola

BAND = 256  # rows at a time

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Maker:
    """M = S - left @ right; `own` is the point of each residual, no two have the same."""

    own: Places  # (residuals,)
    left: Floats  # (residuals, coefficients)
    right: Floats  # (coefficients, points)

    def of(self, errors: Floats) -> Floats:
        """The residuals (residuals,) of some errors (points,)."""
        return np.asarray(errors[self.own] - self.left @ (self.right @ errors))

    def added(self, places: Places) -> Floats:
        """How the sum of some residuals follows the points, (points,)."""
        found = -(self.left[places].sum(axis=0) @ self.right)
        found[self.own[places]] += 1
        return np.asarray(found)

    def after(self, jacobian: Floats, follows: Floats) -> "Maker":
        """The maker of what another fit has left: of errors less `jacobian` (points, parameters)
        @ `follows` (parameters, points) @ errors."""
        passed = jacobian[self.own] - self.left @ (self.right @ jacobian)
        return Maker(self.own, np.hstack([self.left, passed]), np.vstack([self.right, follows]))

    def bands(self, group: Places) -> Iterator[tuple[slice, Floats]]:
        """(M T)(M T)' with T summing points of one `group` (points,): slices of rows and the rows.
        With a group for each point it is M M'."""
        _, group = np.unique(group, return_inverse=True)
        summed = np.zeros((group.max(initial=-1) + 1, len(self.right)))
        np.add.at(summed, group, self.right.T)
        mine = group[self.own]
        own, inner = summed[mine], summed.T @ summed
        for start in range(0, len(mine), BAND):
            band = slice(start, min(start + BAND, len(mine)))
            left = self.left[band]
            rows = (left @ inner - own[band]) @ self.left.T - left @ own.T
            yield band, rows + (mine[band, None] == mine[None, :])


def of_parabolas(parabolas: Sequence[Parabola], places: Sequence[Places], points: int) -> Maker:
    """What parabolas leave of the points under each of them, `places` among all `points`."""
    own = np.concatenate(places).astype(np.intp) if len(places) else np.zeros(0, np.intp)
    columns = sum(parabola.design.shape[1] for parabola in parabolas)
    left, right = np.zeros((len(own), columns)), np.zeros((columns, points))
    row = column = 0
    for parabola, under in zip(parabolas, places, strict=True):
        rows = slice(row, row + len(under))
        at = slice(column, column + parabola.design.shape[1])
        left[rows, at] = parabola.design
        right[at, under] = parabola.inverse
        row, column = rows.stop, at.stop
    return Maker(own, left, right)
