"""A law of size and tokens in other coordinates, so that its exponent a can be held.

alpha = s (1 - a) and beta = s a, with s in the place of alpha and a in that of beta: the solver can
hold a column of theta, and a is one here.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from analysis.fits.parametric.laws import Expansion, Floats, Law, Rows, SizeAndTokens, Term

S, A = 1, 3  # columns of theta, those of alpha and beta in the law's own


@dataclass(frozen=True)
class ByShare(Law):
    """`law` with s and a for its exponents."""

    law: SizeAndTokens
    name: ClassVar[str] = "by share"
    terms: ClassVar[tuple[Term, ...]] = ()
    in_logs: ClassVar[tuple[str, ...]] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """As the law's own, s for alpha and a for beta."""
        names = self.law.parameters
        return tuple({"alpha": "s", "beta": "a"}.get(name, name) for name in names)

    @classmethod
    def of(cls, table: pd.DataFrame) -> "ByShare":
        """Made from a law, never from a table."""
        raise NotImplementedError

    def take(self, rows: Rows) -> "ByShare":
        """The same law at some of the points."""
        return ByShare(self.law.take(rows))

    def log_loss(self, theta: Floats) -> Floats:
        """log L, (sets, points)."""
        return self.law.log_loss(from_share(theta))

    def term_shares(self, theta: Floats) -> tuple[Floats, ...]:
        """As the law's own."""
        return self.law.term_shares(from_share(theta))

    def expand(self, theta: Floats) -> Expansion:
        """log L with its derivatives in the new coordinates."""
        own = self.law.expand(from_share(theta))
        turn = np.tile(np.eye(theta.shape[1]), (len(theta), 1, 1))  # d theta / d coordinates
        s, a = theta[:, 1], theta[:, 3]
        turn[:, 1, 1], turn[:, 1, 3] = 1 - a, -s
        turn[:, 3, 1], turn[:, 3, 3] = a, s
        flipped = turn.transpose(0, 2, 1)

        def add_curvature(hessian: Floats, force: Floats) -> None:
            inner = np.zeros_like(hessian)
            own.add_curvature(inner, force)
            hessian += flipped @ inner @ turn
            bend = ((own.jacobian[:, 3] - own.jacobian[:, 1]) * force).sum(axis=1)
            hessian[:, 1, 3] += bend
            hessian[:, 3, 1] += bend

        return Expansion(own.log_loss, flipped @ own.jacobian, add_curvature)


def from_share(theta: Floats) -> Floats:
    """alpha and beta in place of s and a."""
    turned = theta.copy()
    turned[:, 1], turned[:, 3] = theta[:, 1] * (1 - theta[:, 3]), theta[:, 1] * theta[:, 3]
    return turned


def to_share(theta: Floats) -> Floats:
    """s and a in place of alpha and beta."""
    turned = theta.copy()
    turned[:, 1] = theta[:, 1] + theta[:, 3]
    turned[:, 3] = theta[:, 3] / turned[:, 1]
    return turned
