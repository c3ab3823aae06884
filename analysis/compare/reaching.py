"""A baseline's best loss between its budgets and beyond them, and what it takes to reach a loss.

The best losses L at budgets C are joined by straight lines in (log C, log(L - E)): exact where
L = E + K C^-gamma, whatever gamma is. E is that of the law that corrects the baseline's minima
(`analysis.fits.debias`), else of a curve through three or more minima (`analysis.fits.floored`),
else 0. Lines in log L itself (E = 0) lie above a curve with a floor between its points and below it
beyond them: k = 2 would be 2.1 between budgets a decade apart and 1.8 beyond (docs/coverage.md).

Units: losses and floors in nats per token; FLOPs, or device seconds, which grow with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.fits import floored
from analysis.fits.isoflop import LOST, ModelFrontier
from analysis.fits.minimum import Minimum, Status
from analysis.fits.parabola import Floats
from analysis.fits.resample import percentiles

Places = NDArray[np.intp] | int
FLAT = 1e-9
ROUNDING = 1e-6  # of FLOPs or seconds, relative
LEAST = 3  # minima that give a floor


@dataclass(frozen=True)
class Curves:
    """Sets of best losses (sets, budgets) at FLOPs or seconds (budgets,), ascending, over the
    floors of the sets, (sets,)."""

    at: Floats
    losses: Floats
    floors: Floats

    def reaching(self, losses: Floats) -> Floats:
        """FLOPs or seconds at which each set reaches its loss, (sets,); NaN where it is flat or
        never does."""
        if len(self.at) < 2:
            return np.full(len(losses), np.nan)
        x, y, wanted = np.log(self.at), self._excess(self.losses), self._excess(losses[:, None])
        # The segment that holds the loss: curves fall, so count the inner joints that lie above it.
        segment: Places = np.sum(y[:, 1:-1] > wanted, axis=1, dtype=np.intp)
        left, slope = self._line(x, y, segment)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = np.exp(x[segment] + (wanted[:, 0] - left) / slope)
        return np.where((slope < -FLAT) & np.isfinite(found), found, np.nan)

    def losses_at(self, at: float) -> Floats:
        """The loss of each set at so many FLOPs or seconds, (sets,)."""
        x, wanted = np.log(self.at), np.log(at)
        segment = int(np.clip(np.searchsorted(x, wanted) - 1, 0, len(x) - 2))
        left, slope = self._line(x, self._excess(self.losses), segment)
        return np.asarray(self.floors + np.exp(left + slope * (wanted - x[segment])))

    def outside(self, at: float) -> bool:
        """Whether FLOPs or seconds lie outside of the points, by more than rounding."""
        return not self.at[0] * (1 - ROUNDING) <= at <= self.at[-1] * (1 + ROUNDING)

    def _excess(self, losses: Floats) -> Floats:
        """log(L - E); NaN at the floor and below it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(losses - self.floors[:, None])

    @staticmethod
    def _line(x: Floats, y: Floats, segment: Places) -> tuple[Floats, Floats]:
        """The line that each set follows: y at its left end and slope, (sets,)."""
        rows = np.arange(len(y))
        left, right = y[rows, segment], y[rows, segment + 1]
        return left, (right - left) / (x[segment + 1] - x[segment])


@dataclass(frozen=True)
class Baseline:
    """The baseline as estimated (1 set) and resampled, where every minimum has samples. Through two
    minima without a law any floor fits: then k has no interval."""

    curve: Curves
    drawn: Curves | None
    known: bool  # the floor

    def multiplier(
        self, loss: float, drawn: Floats | None, at: float
    ) -> tuple[float | None, tuple[float, float] | None, bool]:
        """What it takes to reach a loss, over `at`, with its interval by the resampled losses; and
        whether that lies outside of the baseline's points."""
        reached = float(self.curve.reaching(np.array([loss]))[0])
        if not np.isfinite(reached):
            return None, None, False
        outside = self.curve.outside(reached)
        if drawn is None or self.drawn is None or not self.known:
            return reached / at, None, outside
        samples = self.drawn.reaching(drawn) / at
        lost = float(np.mean(~np.isfinite(samples)))
        return reached / at, None if lost > LOST else percentiles(samples), outside


def best_loss(minimum: Minimum) -> float:
    """The minimum that the points enclose, else the lowest measured loss (nats per token)."""
    return minimum.lowest_loss if minimum.loss is None else minimum.loss


def resampled_losses(frontier: ModelFrontier, minimum: Minimum) -> Floats | None:
    """Resampled best losses; None where the study has no spare point or no enclosed minimum."""
    if minimum.status is not Status.INTERIOR:
        return None
    return frontier.drawn.loss.get(minimum.budget)


def baseline_of(frontier: ModelFrontier, minima: Sequence[Minimum], at: Floats) -> Baseline:
    """The best losses of a model over what its minima take: FLOPs, or device seconds."""
    losses = np.array([[best_loss(minimum) for minimum in minima]])
    correction = frontier.correction
    corrected = bool(correction.shifts)
    floors = _floors(at, losses)
    if corrected:
        floors = correction.floors(np.zeros((1, len(correction.index))))
    curve = Curves(at, losses, np.where(floors < losses.min(axis=1), floors, 0.0))
    samples = [resampled_losses(frontier, minimum) for minimum in minima]
    complete = [drawn for drawn in samples if drawn is not None]
    drawn = None
    if len(complete) == len(minima):
        sets = np.stack(complete, axis=1)
        lawful = frontier.drawn.floor if corrected else None
        drawn = Curves(at, sets, _floors(at, sets) if lawful is None else lawful)
    return Baseline(curve, drawn, corrected or len(at) >= LEAST)


def _floors(at: Floats, losses: Floats) -> Floats:
    """E of the curves through losses (sets, budgets); 0 where they have none, (sets,)."""
    if len(at) < LEAST:
        return np.zeros(len(losses))
    return np.nan_to_num(floored.through(np.log(at), losses).floor)
