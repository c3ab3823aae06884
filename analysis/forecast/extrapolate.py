"""One model beyond its points: its best loss, its best size and single runs at other budgets.

*By law* where approach 3 meets the points within their noise and gives the bend of the frontier
(the same tests that let it correct parabolas, `analysis.fits.debias`): least squares in log loss.

*By minima* elsewhere, with at least three enclosed: between a line through the last three minima in
log-log, which has no floor and falls too far, and L = E + K C^-gamma through all of them, which
bends too much where the law is none. Half their distance is the choice of law in the interval.

Intervals are of what a fit or a run *at that budget* will say: parameters, choice of law, and the
noise of what is going to be measured, as large as it is among the points.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.cautions import Code
from analysis.fits import bootstrap
from analysis.fits.debias import SQUARES, STARTS
from analysis.fits.floored import through as floored_through
from analysis.fits.isoflop import ModelFrontier
from analysis.fits.noise import Noise
from analysis.fits.parametric.frontier import bend, best_log_loss, best_size, plane_of
from analysis.fits.parametric.laws import Chinchilla, Floats
from analysis.fits.parametric.optimum import fit_law
from analysis.fits.parametric.solver import Problem
from analysis.fits.resample import Intervals, group_points, interval_of, intervals, percentiles
from analysis.formatting import plural

NORMAL = 1e6  # degrees of freedom
LAST = 3  # minima of the local line
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Guess:
    """A number in logs with its samples (draws,), and how far laws disagree about it."""

    value: float
    samples: Floats
    laws: float = 0.0
    drawn: Intervals | None = None  # how the samples are read; None: percentiles

    def interval(self, level: float) -> Interval:
        """In logs; None without draws."""
        if not len(self.samples):
            return None
        if self.drawn is None:
            ends = percentiles(self.samples, level)
        else:
            ends = interval_of(self.samples, self.value, self.drawn, level)
        return ends and self._widened(ends, level)

    def _widened(self, ends: tuple[float, float], level: float) -> tuple[float, float]:
        reach = bootstrap.student_quantile(NORMAL, level) * self.laws
        low, high = self.value - ends[0], ends[1] - self.value
        return (
            self.value - float(np.hypot(low, reach) if low > 0 else low),
            self.value + float(np.hypot(high, reach) if high > 0 else high),
        )


class Beyond(ABC):
    """One model; budgets and sizes in logs. `how` is law or minima."""

    how: str

    def __init__(self, frontier: ModelFrontier, noise: Noise, resamples: int, seed: int) -> None:
        self.frontier = frontier
        self.noise = noise
        self.resamples = resamples if noise.known else 0
        self._rng = bootstrap.generator(frontier.model + " measured", seed)
        self._scale = bootstrap.scales(noise, self.resamples, seed) if self.resamples else None

    @abstractmethod
    def best(self, log_budget: float) -> Guess:
        """The best loss."""

    @abstractmethod
    def size(self, log_budget: float) -> Guess:
        """N_opt."""

    @abstractmethod
    def run(self, log_params: float, log_budget: float) -> Guess:
        """The loss of one run."""

    def _measured(self, samples: Floats, relative: float) -> Floats:
        """With the noise of a measurement, `relative` times that of a run."""
        if self._scale is None or not len(samples):
            return samples
        scale = np.resize(self._scale, len(samples))
        return samples + relative * scale * self._rng.standard_normal(len(samples))

    def _of_minima(self) -> float:
        """Standard error of a best loss over the noise of a run."""
        errors = [
            self.frontier.loss_errors[m.budget] / m.loss
            for m in self.frontier.interior
            if m.loss and m.budget in self.frontier.loss_errors
        ]
        return float(np.sqrt(np.mean(np.square(errors))) / self.noise.relative) if errors else 0.0

    def _of_sizes(self, log_budget: float) -> float:
        """Standard deviation of a measured log N_opt: the flatter the loss in log N, the larger."""
        found = []
        for m in self.frontier.interior:
            drawn = self.frontier.drawn.log_params.get(m.budget)
            if drawn is not None:
                found.append(float(np.nanstd(drawn)) * self._bend(float(np.log(m.budget))))
        return float(np.sqrt(np.mean(np.square(found)))) / self._bend(log_budget) if found else 0.0

    def _bend(self, log_budget: float) -> float:
        """In proportion to d^2 log L / d(log N)^2 at the best size; 1 where no law says it."""
        return 1.0


class ByLaw(Beyond):
    """Approach 3 by least squares."""

    how = "law"

    def __init__(
        self, rows: pd.DataFrame, frontier: ModelFrontier, noise: Noise, resamples: int, seed: int
    ) -> None:
        super().__init__(frontier, noise, resamples, seed)
        problem = Problem(Chinchilla.of(rows), np.log(rows["loss"].to_numpy(float)), SQUARES)
        self.fit = fit_law(problem, STARTS)
        own = int(bootstrap.generator(frontier.model, seed).integers(2**31))
        self.drawn = intervals(self.fit, group_points(rows, "auto"), self.resamples, own)
        self.plane = plane_of(rows)

    def best(self, log_budget: float) -> Guess:
        """L* = E + K C^-gamma."""
        value, samples = (best_log_loss(t, self.plane, log_budget) for t in self._sets())
        return self._guess(value, self._measured(samples, self._of_minima()))

    def size(self, log_budget: float) -> Guess:
        """log N_opt, a line in log C."""
        value, samples = (best_size(t, self.plane, log_budget) for t in self._sets())
        spread = self._of_sizes(log_budget) * self._rng.standard_normal(len(samples))
        return self._guess(value, samples + spread)

    def run(self, log_params: float, log_budget: float) -> Guess:
        """The law at that size and the tokens that the budget pays for."""
        p, q, r = self.plane
        at = Chinchilla(np.array([log_params]), np.array([p + q * log_params + r * log_budget]))
        value, samples = (at.log_loss(t)[:, 0] for t in self._sets())
        return self._guess(value, self._measured(samples, 1.0))

    def _bend(self, log_budget: float) -> float:
        return float(bend(self.fit.theta[None], self.plane, log_budget)[0])

    def _sets(self) -> tuple[Floats, Floats]:
        return self.fit.theta[None], self.drawn.thetas

    def _guess(self, value: Floats, samples: Floats) -> Guess:
        return Guess(float(value[0]), samples, drawn=self.drawn)


class ByMinima(Beyond):
    """Between a local power law and one with a floor."""

    how = "minima"

    def __init__(self, frontier: ModelFrontier, noise: Noise, resamples: int, seed: int) -> None:
        super().__init__(frontier, noise, resamples, seed)
        minima = frontier.interior
        self.log_budgets = np.log([m.budget for m in minima])
        self.losses = np.array([[m.loss for m in minima]], float)
        self.log_params = np.log(np.array([[m.params for m in minima]], float))
        drawn = frontier.drawn
        budgets = [m.budget for m in minima if m.budget in drawn.loss]
        full = len(budgets) == len(minima) and self.resamples > 0
        self.loss_draws = _stacked([drawn.loss[b] for b in budgets] if full else [])
        self.size_draws = _stacked([drawn.log_params[b] for b in budgets] if full else [])

    def best(self, log_budget: float) -> Guess:
        """Half way between the two laws."""
        local, floor = (law(self.log_budgets, self.losses, log_budget)[0] for law in LAWS)
        drawn = [law(self.log_budgets, self.loss_draws, log_budget) for law in LAWS]
        samples = self._measured(0.5 * (drawn[0] + drawn[1]), self._of_minima())
        return Guess(0.5 * float(local + floor), samples, 0.5 * abs(float(local - floor)))

    def size(self, log_budget: float) -> Guess:
        """The power law through all minima; the last three may point elsewhere."""
        value = float(_line(self.log_budgets, self.log_params, log_budget)[0])
        last = _line(self.log_budgets[-LAST:], self.log_params[:, -LAST:], log_budget)[0]
        whole = self.size_draws[~np.isnan(self.size_draws).any(axis=1)]
        samples = _line(self.log_budgets, whole, log_budget)
        spread = self._of_sizes(log_budget) * self._rng.standard_normal(len(samples))
        return Guess(value, samples + spread, 0.5 * abs(value - float(last)))

    def run(self, log_params: float, log_budget: float) -> Guess:
        """The best loss and the bend of the parabolas, a share of the loss for (log N)^2."""
        best, size = self.best(log_budget), self.size(log_budget)
        bends = np.array(
            [m.parabola.coefficients[2] / m.parabola.half_width**2 / m.loss
             for m in self.frontier.interior if m.parabola and m.loss]
        )  # fmt: skip
        mean = float(bends.mean())
        away = log_params - size.value
        number = min(len(best.samples), len(size.samples))
        bent = mean + bends.std() / np.sqrt(len(bends)) * self._rng.standard_normal(number)
        samples = best.samples[:number] + bent * (log_params - size.samples[:number]) ** 2
        laws = float(np.hypot(best.laws, 2 * mean * away * size.laws))
        return Guess(best.value + mean * away**2, self._measured(samples, 1.0), laws)


def _stacked(samples: list[Floats]) -> Floats:
    return np.stack(samples, axis=1) if samples else np.empty((0, 1))


def _line(x: Floats, y: Floats, at: float) -> Floats:
    """Least-squares lines of the rows of y (sets, points) at one x, (sets,)."""
    if not len(y):
        return np.empty(0)
    design = np.stack([np.ones_like(x), x], axis=1)
    return np.asarray(y @ (np.linalg.pinv(design).T @ np.array([1.0, at])))


def _local(log_budgets: Floats, losses: Floats, at: float) -> Floats:
    """log L by a power law through the last minima."""
    with np.errstate(invalid="ignore"):
        return _line(log_budgets[-LAST:], np.log(losses[:, -LAST:]), at)


def _floor(log_budgets: Floats, losses: Floats, at: float) -> Floats:
    """log L by E + K C^-gamma through all minima. Without one that falls and has a floor, the power
    law through all of them."""
    if not len(losses):
        return np.empty(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        floored = np.log(floored_through(log_budgets, losses).loss(at))
    return np.where(np.isnan(floored), _line(log_budgets, np.log(losses), at), floored)


LAWS = (_local, _floor)


def beyond(
    rows: pd.DataFrame, frontier: ModelFrontier, noise: Noise, resamples: int, seed: int
) -> Beyond | str:
    """How a model is carried on; or why it cannot be."""
    if frontier.note.code is Code.BIAS_CORRECTED and len(frontier.minima) > 1:
        return ByLaw(rows, frontier, noise, resamples, seed)
    if len(frontier.interior) >= LAST:
        return ByMinima(frontier, noise, resamples, seed)
    budgets = plural(len(frontier.interior), "budget")
    return (
        f"{frontier.model} has {budgets} with an enclosed minimum where a line takes {LAST}, and a "
        f"law takes two that it meets ({frontier.note.reason or 'one budget'})"
    )
