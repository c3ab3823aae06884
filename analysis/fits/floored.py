"""L = E + K C^-gamma through a few best losses: least squares over E >= 0, K >= 0 and gamma.

Source: the frontier of Hoffmann et al. 2022 (arXiv 2203.15556), whose best loss at a budget has
this form. With three budgets it goes through all of them.
"""

from dataclasses import dataclass

import numpy as np

from analysis.fits.parabola import Floats

GAMMAS = np.geomspace(0.005, 1.0, 80)
HALVINGS = 40  # of the interval between two of them
GOLDEN = (np.sqrt(5.0) - 1) / 2


@dataclass(frozen=True)
class Floored:
    """One curve for each set of losses, each (sets,); NaN where none falls and has a floor."""

    floor: Floats  # E, nats per token
    scale: Floats  # K at `centre`
    gamma: Floats
    centre: float  # of log C

    def loss(self, log_budget: float) -> Floats:
        """At another budget, (sets,)."""
        return np.asarray(
            self.floor + self.scale * np.exp(-self.gamma * (log_budget - self.centre))
        )


def through(log_budgets: Floats, losses: Floats) -> Floored:
    """The curves of losses (sets, budgets) in nats per token."""
    centre = float(log_budgets.mean())
    x = log_budgets - centre
    missed = np.stack([_fit(x, losses, np.full(len(losses), gamma))[0] for gamma in GAMMAS])
    best = np.argmin(missed, axis=0)
    found = np.isfinite(missed.min(axis=0))
    low, high = GAMMAS[np.maximum(best - 1, 0)], GAMMAS[np.minimum(best + 1, len(GAMMAS) - 1)]
    for _ in range(HALVINGS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        nearer = _fit(x, losses, left)[0] < _fit(x, losses, right)[0]
        low, high = np.where(nearer, low, left), np.where(nearer, right, high)
    ends = np.stack([low, high, GAMMAS[best]])  # one of the first two may want a floor below zero
    which = np.argmin([_fit(x, losses, gamma)[0] for gamma in ends], axis=0)
    gamma = ends[which, np.arange(len(losses))]
    _, floor, scale = _fit(x, losses, gamma)
    nothing = np.where(found, 0.0, np.nan)
    return Floored(floor + nothing, scale + nothing, gamma + nothing, centre)


def _fit(x: Floats, losses: Floats, gamma: Floats) -> tuple[Floats, Floats, Floats]:
    """Squares missed (infinite where E or K is below zero), E and K at the gamma of each set."""
    powers = np.exp(-gamma[:, None] * x)
    middle = powers.mean(axis=1, keepdims=True)
    mean = losses.mean(axis=1, keepdims=True)
    off = powers - middle
    scale = np.sum(off * (losses - mean), axis=1) / np.sum(off**2, axis=1)
    floor = mean[:, 0] - scale * middle[:, 0]
    missed = np.sum((losses - floor[:, None] - scale[:, None] * powers) ** 2, axis=1)
    return np.where((floor >= 0) & (scale >= 0), missed, np.inf), floor, scale
