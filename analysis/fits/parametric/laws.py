"""The scaling laws of approach 3, written so that thousands of parameter sets are tried at once.

A law is a class: it brings its loss, the first and second derivatives, and the box in which starts
are drawn. The solver, the resampling and the hold-outs know no law. A new one is a sub-class of
`Law` and a line in `analysis.fits.parametric.registry`.

    log L = logsumexp(log A - alpha u, log B - beta log D, log E)

with u the log of an effective size. Source: Hoffmann et al. 2022 (arXiv 2203.15556) section 3.3 for
u = log N; arXiv 2604.21106 for looped models, u = log(N_once + r^phi N_rec). Units: N in
parameters, D in tokens, L and E in nats per token; A and B carry whatever makes the sum nats.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import AnalysisError

Floats = NDArray[np.float64]
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Expansion:
    """A law around some parameter sets: log L (sets, points), its Jacobian (sets, P, points), and
    its own curvature.

    `add_curvature(hessian, force)` adds to `hessian` (sets, P, P) the sum over points of force x
    (d2L / dtheta2) / L, `force` (sets, points); the part of d2(log L) that is minus the Jacobian's
    outer product is the solver's.
    """

    log_loss: Floats
    jacobian: Floats
    add_curvature: Callable[[Floats, Floats], None]


@dataclass(frozen=True)
class Term:
    """A summand of L: its coefficient, its exponent, and the column that identifies it."""

    coefficient: str
    exponent: str | None
    told_by: str  # the columns whose spread holds the term

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that are known through this term only."""
        return (self.coefficient,) if self.exponent is None else (self.coefficient, self.exponent)


class Law(ABC):
    """A law at some points. A parameter set is a row theta, one column for each of `parameters`."""

    name: ClassVar[str]
    formula: ClassVar[str]
    # Columns of the point table that it reads, and whether it is fitted to all models together.
    columns: ClassVar[tuple[str, ...]]
    across_models: ClassVar[bool] = False
    terms: ClassVar[tuple[Term, ...]]
    # Parameters that theta holds as logs.
    in_logs: ClassVar[tuple[str, ...]]
    # What `derived` gives: unknown where a term with an exponent has vanished.
    derived_names: ClassVar[tuple[str, ...]] = ()
    # Starts: axes of a grid over the first parameters, and a range for each of the others.
    start_grid: ClassVar[tuple[Floats, ...]]

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """The names of theta's columns."""

    @property
    def start_ranges(self) -> tuple[tuple[float, float], ...]:
        """Where the parameters behind those of `start_grid` start: drawn evenly."""
        return ()

    @classmethod  # noqa: B027
    def refuse(cls, table: pd.DataFrame) -> None:
        """Raise AnalysisError where the points of `table` are of no use to this law."""

    @classmethod
    @abstractmethod
    def of(cls, table: pd.DataFrame) -> Self:
        """The law at the points of `table`, which has `columns`."""

    @abstractmethod
    def take(self, rows: Rows) -> Self:
        """The same law at some of the points."""

    @abstractmethod
    def log_loss(self, theta: Floats) -> Floats:
        """log L of every parameter set at every point, (sets, points)."""

    @abstractmethod
    def expand(self, theta: Floats) -> Expansion:
        """log L with its derivatives."""

    @abstractmethod
    def term_shares(self, theta: Floats) -> tuple[Floats, ...]:
        """The share of each of `terms` in L, (sets, points), in their order."""

    def term_centres(self, theta: Floats) -> dict[str, float]:
        """By exponent, the mean log of its base: moved together by this much, a coefficient and its
        exponent leave the term as large as it was. Only used to start a fit nearby."""
        return {}

    def projected(self, theta: Floats, loss: Floats, power: float) -> Floats:
        """The parameter sets with the coefficients that are best for their exponents: least squares
        of the loss (points,), each residual over loss ** power. Only used to start a fit nearby."""
        return theta

    def values(self, theta: Floats) -> dict[str, Floats]:
        """Named parameters out of their logs, and what follows from them."""
        # A resample that needs no such term may send its coefficient past the largest float.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            named = {
                name: np.exp(theta[:, column]) if name in self.in_logs else theta[:, column]
                for column, name in enumerate(self.parameters)
            }
            return {**named, **self.derived(named)}

    def derived(self, named: dict[str, Floats]) -> dict[str, Floats]:
        """What follows from the parameters; nothing, unless the law says so."""
        return {}


# The 4,500 starts of Hoffmann et al. 2022: log A, alpha, log B, beta, log E.
HOFFMANN_GRID = (
    np.arange(0, 30, 5.0),
    np.arange(0, 2.5, 0.5),
    np.arange(0, 30, 5.0),
    np.arange(0, 2.5, 0.5),
    np.arange(-1, 1.5, 0.5),
)
SMALL = 1e-9  # of the trace: collinear terms are separated no better
LEAST = 1e-3  # of the mean loss: the smallest term that a projection leaves
PHI_RANGE = (-0.5, 1.5)
FIVE = ("A", "alpha", "B", "beta", "E")


class SizeAndTokens(Law):
    """L = E + A exp(-alpha u) + B / D^beta, u the log of an effective size."""

    log_tokens: Floats
    across_models: ClassVar[bool] = False
    terms = (
        Term("A", "alpha", "params"),
        Term("B", "beta", "tokens"),
        Term("E", None, "params and tokens"),
    )
    in_logs = ("A", "B", "E")
    derived_names = ("a", "b")
    start_grid = HOFFMANN_GRID

    @abstractmethod
    def log_size(self, theta: Floats) -> Floats:
        """u, (1 or sets, points)."""

    def log_loss(self, theta: Floats) -> Floats:
        """log L of every parameter set at every point, (sets, points)."""
        return self._shares(theta)[0]

    def term_shares(self, theta: Floats) -> tuple[Floats, ...]:
        """Shares of the size term, the data term and the floor."""
        return self._shares(theta)[1:]

    def _shares(self, theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """log L and the share of each summand in L: size, data, floor; all (sets, points)."""
        size = theta[:, 0:1] - theta[:, 1:2] * self.log_size(theta)
        data = theta[:, 2:3] - theta[:, 3:4] * self.log_tokens
        floor = theta[:, 4:5]
        top = np.maximum(np.maximum(size, data), floor)
        parts = np.exp(size - top), np.exp(data - top), np.exp(floor - top)
        total = parts[0] + parts[1] + parts[2]
        return top + np.log(total), parts[0] / total, parts[1] / total, parts[2] / total

    def expand(self, theta: Floats) -> Expansion:
        """log L with its derivatives in the five parameters."""
        log_loss, size, data, floor = self._shares(theta)
        u = np.broadcast_to(self.log_size(theta), log_loss.shape)
        v = np.broadcast_to(self.log_tokens, log_loss.shape)
        jacobian = np.stack([size, -size * u, data, -data * v, floor], axis=1)

        def add_curvature(hessian: Floats, force: Floats) -> None:
            # Each summand's share times the outer product of its exponents.
            _add_block(hessian, (0, 1), force * size, (np.ones_like(u), -u))
            _add_block(hessian, (2, 3), force * data, (np.ones_like(v), -v))
            hessian[:, 4, 4] += (force * floor).sum(axis=1)

        return Expansion(log_loss, jacobian, add_curvature)

    def term_centres(self, theta: Floats) -> dict[str, float]:
        """Mean u and mean log D."""
        return {
            "alpha": float(self.log_size(theta).mean()),
            "beta": float(self.log_tokens.mean()),
        }

    def projected(self, theta: Floats, loss: Floats, power: float) -> Floats:
        """A, B and E for each set's exponents; a term that would be negative is made small."""
        size = np.broadcast_to(self.log_size(theta), (len(theta), len(loss)))
        centres = size.mean(axis=1, keepdims=True), self.log_tokens.mean()
        u, v = size - centres[0], self.log_tokens - centres[1]
        parts = [np.exp(-theta[:, 1:2] * u), np.exp(-theta[:, 3:4] * v), np.ones_like(u)]
        # A loss next to zero overflows here: no number comes out, and a start that has none stays.
        with np.errstate(over="ignore", invalid="ignore"):
            terms = np.stack(parts, axis=1) / loss**power  # (sets, 3, points)
            square = terms @ terms.transpose(0, 2, 1)
            square += SMALL * np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(3)
        right = (terms @ loss ** (1 - power))[:, :, None]
        found = np.maximum(np.linalg.solve(square, right)[:, :, 0], LEAST * loss.mean())
        moved = theta.copy()
        moved[:, 0] = np.log(found[:, 0]) + theta[:, 1] * centres[0][:, 0]
        moved[:, 2] = np.log(found[:, 1]) + theta[:, 3] * centres[1]
        moved[:, 4] = np.log(found[:, 2])
        return moved

    def derived(self, named: dict[str, Floats]) -> dict[str, Floats]:
        """a = beta / (alpha + beta) and b = 1 - a: the exponents of N_opt ~ C^a and D_opt ~ C^b
        (Hoffmann et al. 2022, equation 4)."""
        a = named["beta"] / (named["alpha"] + named["beta"])
        return {"a": a, "b": 1 - a}


def _add_block(
    hessian: Floats, columns: tuple[int, int], force: Floats, rows: tuple[Floats, Floats]
) -> None:
    for i, left in zip(columns, rows, strict=True):
        for j, right in zip(columns, rows, strict=True):
            hessian[:, i, j] += np.einsum("sn,sn,sn->s", force, left, right)


@dataclass(frozen=True)
class Chinchilla(SizeAndTokens):
    """L = E + A / N^alpha + B / D^beta."""

    log_params: Floats
    log_tokens: Floats
    name: ClassVar[str] = "chinchilla"
    formula: ClassVar[str] = "L = E + A/N^alpha + B/D^beta"
    columns: ClassVar[tuple[str, ...]] = ("params", "tokens", "loss")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of theta's columns."""
        return FIVE

    @classmethod
    def of(cls, table: pd.DataFrame) -> "Chinchilla":
        """The law on the columns params and tokens."""
        return cls(*(np.log(table[c].to_numpy(float)) for c in ("params", "tokens")))

    def take(self, rows: Rows) -> "Chinchilla":
        """The same law at some of the points."""
        return Chinchilla(self.log_params[rows], self.log_tokens[rows])

    def log_size(self, theta: Floats) -> Floats:
        """log N, the same for every parameter set."""
        return self.log_params[None, :]


@dataclass(frozen=True)
class Joint(SizeAndTokens):
    """L = E + A (N_once + r^phi N_rec)^-alpha + B D^-beta; `phi` None is fitted.

    N_once: parameters that a token meets once; N_rec: those of the shared block, counted once;
    r: mean number of times that a token goes through the block (1 for a vanilla model).
    """

    n_once: Floats
    n_rec: Floats
    log_r: Floats
    log_tokens: Floats
    phi: float | None = None
    name: ClassVar[str] = "joint"
    formula: ClassVar[str] = "L = E + A (N_once + r^phi N_rec)^-alpha + B D^-beta"
    columns: ClassVar[tuple[str, ...]] = ("params", "tokens", "loss", "n_once", "n_rec", "r")
    across_models: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of theta's columns."""
        return (*FIVE, "phi") if self.phi is None else FIVE

    @property
    def start_ranges(self) -> tuple[tuple[float, float], ...]:
        """phi has no published grid."""
        return (PHI_RANGE,) if self.phi is None else ()

    @classmethod
    def refuse(cls, table: pd.DataFrame) -> None:
        """Raise AnalysisError unless some points go through their block more than once."""
        looped = (table["n_rec"] > 0) & (table["r"] != 1)
        if not looped.any():
            raise AnalysisError(
                "The joint law needs looped points (n_rec above 0 and r other than 1) and there "
                "are none: add recursive or routed runs, or fit --law chinchilla."
            )

    @classmethod
    def of(cls, table: pd.DataFrame, phi: float | None = None) -> "Joint":
        """The law on the columns n_once, n_rec, r and tokens."""
        once, rec, r, tokens = (
            table[c].to_numpy(float) for c in ("n_once", "n_rec", "r", "tokens")
        )
        return cls(once, rec, np.log(r), np.log(tokens), phi)

    def take(self, rows: Rows) -> "Joint":
        """The same law at some of the points."""
        once, rec, log_r = self.n_once[rows], self.n_rec[rows], self.log_r[rows]
        return Joint(once, rec, log_r, self.log_tokens[rows], self.phi)

    def log_size(self, theta: Floats) -> Floats:
        """log(N_once + r^phi N_rec)."""
        return np.asarray(np.log(self.n_once + self._looped(theta)))

    def _looped(self, theta: Floats) -> Floats:
        phi = theta[:, 5:6] if self.phi is None else np.array([[self.phi]])
        return np.asarray(np.exp(np.clip(phi * self.log_r, -50, 50)) * self.n_rec)

    def expand(self, theta: Floats) -> Expansion:
        """log L with its derivatives, those in phi included where it is free."""
        five = super().expand(theta)
        if self.phi is not None:
            return five
        # With s the share of the looped part: du/dphi = s log r, d2u/dphi2 = s (1 - s) (log r)^2.
        looped = self._looped(theta)
        share = looped / (self.n_once + looped)
        first, second = share * self.log_r, share * (1 - share) * self.log_r**2
        u = self.log_size(theta)
        size = five.jacobian[:, 0]
        pushed = -theta[:, 1:2] * first
        jacobian = np.concatenate([five.jacobian, (size * pushed)[:, None]], axis=1)

        def add_curvature(hessian: Floats, force: Floats) -> None:
            five.add_curvature(hessian, force)
            q = force * size
            for column, other in ((0, np.ones_like(u)), (1, -u)):
                hessian[:, column, 5] += (q * pushed * other).sum(axis=1)
                hessian[:, 5, column] = hessian[:, column, 5]
            bend = -(q * first).sum(axis=1)
            hessian[:, 1, 5] += bend
            hessian[:, 5, 1] += bend
            hessian[:, 5, 5] += (q * (pushed**2 - theta[:, 1:2] * second)).sum(axis=1)

        return Expansion(five.log_loss, jacobian, add_curvature)
