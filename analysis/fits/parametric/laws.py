"""The scaling laws of approach 3, written so that thousands of parameter sets are tried at once.

    log L = logsumexp(log A - alpha u, log B - beta log D, log E)

with u the log of an effective size. Source: Hoffmann et al. 2022 (arXiv 2203.15556) section 3.3 for
u = log N; arXiv 2604.21106 for looped models, u = log(N_once + r^phi N_rec). Units: N in
parameters, D in tokens, L and E in nats per token; A and B carry whatever makes the sum nats.

A parameter set is a row theta = (log A, alpha, log B, beta, log E) and, where phi is free, phi.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NAMES = ("A", "alpha", "B", "beta", "E", "phi")
IN_LOGS = ("A", "B", "E")


class Law(Protocol):
    """What the solver asks of a law: its data and the size term with its derivatives in phi."""

    @property
    def name(self) -> str: ...
    @property
    def log_tokens(self) -> Floats: ...
    @property
    def parameters(self) -> tuple[str, ...]: ...
    def log_size(self, theta: Floats) -> Floats:
        """u, (1 or sets, points)."""

    def bends(self, theta: Floats) -> tuple[Floats, Floats]:
        """du/dphi and d2u/dphi2, (sets, points); only asked for where phi is free."""

    def take(self, rows: NDArray[np.bool_]) -> "Law":
        """The same law at some of the points."""


@dataclass(frozen=True)
class Chinchilla:
    """L = E + A / N^alpha + B / D^beta."""

    log_params: Floats
    log_tokens: Floats
    name: str = "chinchilla"
    parameters: tuple[str, ...] = NAMES[:5]

    def log_size(self, theta: Floats) -> Floats:
        """log N, the same for every parameter set."""
        return self.log_params[None, :]

    def bends(self, theta: Floats) -> tuple[Floats, Floats]:
        """There is no phi: never asked for."""
        raise TypeError("the chinchilla law has no phi")

    def take(self, rows: NDArray[np.bool_]) -> "Chinchilla":
        """The same law at some of the points."""
        return Chinchilla(self.log_params[rows], self.log_tokens[rows])


@dataclass(frozen=True)
class Joint:
    """L = E + A (N_once + r^phi N_rec)^-alpha + B D^-beta; `phi` None is fitted.

    N_once: parameters that a token meets once; N_rec: those of the shared block, counted once;
    r: mean number of times that a token goes through the block (1 for a vanilla model).
    """

    n_once: Floats
    n_rec: Floats
    log_r: Floats
    log_tokens: Floats
    phi: float | None = None
    name: str = "joint"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of theta's columns."""
        return NAMES if self.phi is None else NAMES[:5]

    def log_size(self, theta: Floats) -> Floats:
        """log(N_once + r^phi N_rec)."""
        return np.asarray(np.log(self.n_once + self._looped(theta)))

    def bends(self, theta: Floats) -> tuple[Floats, Floats]:
        """With s the share of the looped part: s log r and s (1 - s) (log r)^2."""
        looped = self._looped(theta)
        share = looped / (self.n_once + looped)
        return share * self.log_r, share * (1 - share) * self.log_r**2

    def _looped(self, theta: Floats) -> Floats:
        phi = theta[:, 5:6] if self.phi is None else np.array([[self.phi]])
        return np.asarray(np.exp(np.clip(phi * self.log_r, -50, 50)) * self.n_rec)

    def take(self, rows: NDArray[np.bool_]) -> "Joint":
        """The same law at some of the points."""
        once, rec, log_r = self.n_once[rows], self.n_rec[rows], self.log_r[rows]
        return Joint(once, rec, log_r, self.log_tokens[rows], self.phi)


def log_terms(law: Law, theta: Floats) -> tuple[Floats, Floats, Floats]:
    """The three summands in logs: size (sets, points), data (sets, points), floor (sets, 1)."""
    size = theta[:, 0:1] - theta[:, 1:2] * law.log_size(theta)
    data = theta[:, 2:3] - theta[:, 3:4] * law.log_tokens
    return size, data, theta[:, 4:5]


def log_loss(law: Law, theta: Floats) -> Floats:
    """log L of every parameter set at every point, (sets, points)."""
    return shares(law, theta)[0]


def shares(law: Law, theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """log L and the share of each summand in L: size, data, floor; all (sets, points)."""
    size, data, floor = log_terms(law, theta)
    top = np.maximum(np.maximum(size, data), floor)
    parts = np.exp(size - top), np.exp(data - top), np.exp(floor - top)
    total = parts[0] + parts[1] + parts[2]
    return top + np.log(total), parts[0] / total, parts[1] / total, parts[2] / total


def values(law: Law, theta: Floats) -> dict[str, Floats]:
    """Named parameters out of their logs, with a = beta / (alpha + beta) and b = 1 - a: the
    exponents of N_opt ~ C^a and D_opt ~ C^b (Hoffmann et al. 2022, equation 4)."""
    # A resample that needs no such term may send its coefficient past the largest float.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        named = {
            name: np.exp(theta[:, column]) if name in IN_LOGS else theta[:, column]
            for column, name in enumerate(law.parameters)
        }
        a = named["beta"] / (named["alpha"] + named["beta"])
    return {**named, "a": a, "b": 1 - a}
