"""Is the exponent a held by the points at all? Profile likelihood of approach 3.

Resampling shows how an estimate moves among the points that are there; it cannot show that other
exponents fit these points as well. On a ladder (tokens a fixed multiple of parameters) the two
terms of the law are two powers of one number: exchanged, they fit alike, and their intervals held
the truth in a third of the studies. So a is held at values between its bounds, the other parameters
are fitted again, and the exponent is identified where the fit gets worse by more than chance on
both sides, without a second best fit beyond. Chance: a test of ratio under Huber's loss with the
residuals' own scale (Huber and Ronchetti 2009, section 7.7), F with one and points - parameters
degrees of freedom.
"""

from dataclasses import dataclass

import numpy as np

from analysis.fits.bootstrap import LEVEL
from analysis.fits.parametric.laws import Floats, Rows, SizeAndTokens
from analysis.fits.parametric.optimum import LawFit
from analysis.fits.parametric.shares import A, ByShare, S, to_share
from analysis.fits.parametric.solver import Problem, polish

ENDS = (0.02, 0.98)  # a of the first and last held value; all of the start box lies in 0 to 1
BETWEEN = 11  # held values on either side of the estimate
STEPS = 60
TUNING = 1.345  # Huber's delta in scales of the residuals: 95 % efficient for normal noise
FLOOR = 1e-6  # of the loss: residuals below are rounding
CLEAR = 1e3  # condition number: above it is asked, below it every set tried was identified
CHEAP = 150  # points: up to as many the profile takes under a tenth of a second
RAY = 0.01  # spread of log D about a rising line of log N: tokens follow from size


@dataclass(frozen=True)
class Profile:
    """How much worse the law fits with a held: `rise` in units of the threshold, so that 1 is as
    far as chance goes. `ray`: tokens follow from size at every point, so the two terms of the law
    can be exchanged. `spread`: the largest D/N over the smallest."""

    held: Floats
    rise: Floats
    estimate: float
    ray: bool
    spread: float

    @property
    def open_below(self) -> bool:
        """No smaller exponent is ruled out."""
        return self.ray or not self._ruled_out(self.held < self.estimate)

    @property
    def open_above(self) -> bool:
        """No larger exponent is ruled out."""
        return self.ray or not self._ruled_out(self.held > self.estimate)

    @property
    def why(self) -> str:
        """What the points say of a, where they do not hold it."""
        if self.ray:
            ratio = "one number" if self.spread < 1.1 else f"within {self.spread:.3g} times"
            return (
                f"tokens follow from size at every point (D/N is {ratio}), so the two terms of "
                "the law can be exchanged"
            )
        if self.open_below and self.open_above:
            return "neither smaller nor larger exponents fit worse by more than chance"
        side = "smaller" if self.open_below else "larger"
        return f"exponents that are much {side} fit as well, up to chance"

    @property
    def identified(self) -> bool:
        """Both sides are ruled out beyond some exponent."""
        return not (self.open_below or self.open_above)

    def _ruled_out(self, side: Rows) -> bool:
        """The side's far end is worse by more than chance, and so is all beyond the first that is:
        a second valley is an exponent that fits as well."""
        rise = self.rise[side][np.argsort(np.abs(self.held[side] - self.estimate))]
        worse = np.flatnonzero(rise > 1)
        return bool(len(worse) and (rise[worse[0] :] > 1).all())


def judged(fit: LawFit, cheap: int = CHEAP) -> Profile | None:
    """The profile of a where it is cheap or where the condition number asks for it, else None."""
    asks = fit.certificate.condition > CLEAR or fit.problem.points <= cheap
    return profile(fit) if asks else None


def profile(fit: LawFit) -> Profile | None:
    """The profile of a around a fitted law; None for a law that has no such exponent."""
    law = fit.problem.law
    if not isinstance(law, SizeAndTokens):
        return None
    log_size, log_tokens = law.log_size(fit.theta[None])[0], law.log_tokens
    line = _line(log_size, log_tokens)
    delta, unit = _chance(fit)
    problem = Problem(ByShare(law), fit.problem.log_loss, delta)
    starts = np.stack([fit.theta, _exchanged(fit.theta, *line)])
    free = polish(Problem(law, fit.problem.log_loss, delta), starts, STEPS)
    best = to_share(free.theta)[np.argsort(free.objective, kind="stable")]
    if np.allclose(best[0], best[1], rtol=1e-6, atol=1e-9):
        best = best[:1]  # both starts ended at one optimum
    estimate = float(best[0, A])
    held = _held(estimate, best[:, A])
    ended = polish(problem, _starts(best, held, log_size, log_tokens), STEPS, held=A)
    lowest = ended.objective.reshape(len(held), -1).min(axis=1)
    return Profile(
        held,
        (lowest - float(free.objective.min())) / unit,
        estimate,
        line[0] > 0 and _spread_about(line, log_size, log_tokens) < RAY,
        float(np.exp(np.ptp(log_tokens - log_size))),
    )


def _line(log_size: Floats, log_tokens: Floats) -> tuple[float, float]:
    """Slope and level of log D over log N; slope 1 where there is one size only."""
    centred = log_size - log_size.mean()
    square = float(centred @ centred)
    slope = float(centred @ log_tokens) / square if square > 0 else 1.0
    return slope, float(log_tokens.mean() - slope * log_size.mean())


def _spread_about(line: tuple[float, float], log_size: Floats, log_tokens: Floats) -> float:
    slope, level = line
    return float(np.std(log_tokens - level - slope * log_size))


def _exchanged(theta: Floats, slope: float, level: float) -> Floats:
    """The parameters with the terms exchanged, as if every point lay on the line; as they are where
    the line does not rise."""
    if slope <= 0:
        return theta
    other = theta.copy()
    other[0], other[1] = theta[2] - theta[3] * level, theta[3] * slope
    other[2], other[3] = theta[0] + theta[1] * level / slope, theta[1] / slope
    return other


def _chance(fit: LawFit) -> tuple[float, float]:
    """Huber's delta for the scale of the residuals, and the rise of the objective that chance
    explains."""
    from scipy.special import fdtri

    size = np.sort(np.abs(fit.residuals))
    spare = fit.problem.points - len(fit.theta)
    # As many residuals as parameters are nearly zero because the parameters saw to it.
    scale = max(float(np.median(size[len(fit.theta) - 1 :])) / 0.6745, FLOOR)
    delta = TUNING * scale
    squares = max(float(np.sum(np.minimum(size, delta) ** 2)), fit.problem.points * FLOOR**2)
    inside = max(float(np.mean(size <= delta)), 0.1)
    return delta, 0.5 * float(fdtri(1, spare, LEVEL)) * squares / spare / inside


def _held(estimate: float, others: Floats) -> Floats:
    """Values of a on both sides of the estimate, and those where the terms change places."""
    low, high = ENDS
    sides = [np.linspace(estimate, end, BETWEEN + 1)[1:] for end in ENDS]
    values = np.concatenate([*sides, others])
    return np.unique(values[(values >= low) & (values <= high) & (values != estimate)])


def _starts(best: Floats, held: Floats, log_size: Floats, log_tokens: Floats) -> Floats:
    """Each free end at every held value, with both terms as large as they were at the middle."""
    starts = []
    for a in held:
        for end in best:
            for factor in (0.5, 1.0, 2.0):
                start = end.copy()
                start[S], start[A] = np.clip(abs(end[S]) * factor, 0.05, 4.0), a
                alpha, beta = start[S] * (1 - a), start[S] * a
                start[0] += (alpha - end[S] * (1 - end[A])) * log_size.mean()
                start[2] += (beta - end[S] * end[A]) * log_tokens.mean()
                starts.append(start)
    return np.array(starts)
