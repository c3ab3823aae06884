"""The bias of a parabola, estimated by approach 3 on the same grid and subtracted.

A loss curve is not a parabola in log N: on a wide, lopsided or drifting grid the vertex lies beside
the minimum (arXiv 2603.22339; -24 to +38 % of N_opt over +-16x here), and where the grid drifts so
does the exponent. Approach 3 has no such bias but stands on one law for all points. So both: the
law is fitted to a model's points by least squares in log loss, parabolas are fitted to its
predictions at the same sizes and tokens, and what they miss of the law's own minimum (the `Shift`)
is taken off those of the measured losses. Only the law's bend is used, not its level: what the law
misses of a budget stays in the corrected minimum.

The shift rests on noisy points, too. To first order it is linear in their errors, and its slopes
go into intervals and p values together with the parabola's own (`analysis.fits.samples`).

A model is not corrected, and says so, where the law cannot be fitted, where it misses the points by
more than their noise (F tests against what the parabolas leave, and what they leave of measured
less predicted losses), or where the shift is noisier than the minimum that it corrects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.fits import noise as noise_of
from analysis.fits.maker import of_parabolas
from analysis.fits.minimum import Minimum
from analysis.fits.noise import Noise, Residuals
from analysis.fits.parabola import Floats, Parabola
from analysis.fits.parametric.caution import NOT_IDENTIFIED, vanished
from analysis.fits.parametric.laws import Chinchilla
from analysis.fits.parametric.optimum import LawFit, fit_law
from analysis.fits.parametric.profile import judged
from analysis.fits.parametric.solver import Problem
from analysis.formatting import plural

STARTS = 32  # a third of polished starts ends at the optimum of such a small least-squares problem
SQUARES = 10.0  # Huber's delta beyond every residual: least squares
MISFIT = 0.01  # chance to refuse a law that is right
STEP = 1e-5


@dataclass(frozen=True)
class Shift:
    """What a parabola misses of the law at one budget, and the change of it for a relative error
    of each of the model's points, (points,)."""

    log_params: float
    loss: float  # nats per token
    log_params_slope: Floats
    loss_slope: Floats


@dataclass(frozen=True)
class Correction:
    """Shifts by budget, or the reason why there are none. `index` are the model's points, in the
    order of the slopes; `predicted` their losses by the law, whose parameters (the last is log E)
    are `theta`. Relative errors move them by `follows` (parameters, points) and these its losses by
    `jacobian` (points, parameters)."""

    reason: str
    shifts: dict[float, Shift]
    index: NDArray[np.intp]
    predicted: Floats
    jacobian: Floats
    follows: Floats
    theta: Floats

    def floors(self, errors: Floats) -> Floats:
        """E of the law, nats per token, under relative errors (sets, points): (sets,)."""
        return np.asarray(np.exp(self.theta[-1] + errors @ self.follows[-1]))

    def places(self, minimum: Minimum) -> list[int]:
        """Where the points under a parabola stand among the model's."""
        place = {row: i for i, row in enumerate(self.index.tolist())}
        return [place[row] for row in minimum.rows]


def correct(
    rows: pd.DataFrame, minima: list[Minimum], noise: Noise, trunk: NDArray[np.intp]
) -> Correction:
    """The correction of one model's enclosed minima; `rows` are all of its points, `noise` is what
    parabolas alone leave, and `trunk` numbers the trunks of the whole table."""
    rows = rows.sort_values(["budget", "params", "loss", "tokens"])
    index = rows.index.to_numpy()
    enclosed = [m for m in minima if m.params is not None]
    reason = _unfit(rows, enclosed, noise)
    if reason:
        return refused(reason)
    fit = fit_law(
        Problem(Chinchilla.of(rows), np.log(rows["loss"].to_numpy(float)), SQUARES), STARTS
    )
    reason = _lost(fit) or _misfit(fit, noise.relative, noise.degrees_of_freedom)
    if reason:
        return refused(reason)
    seen = judged(fit, cheap=0)
    if seen is not None and not seen.identified:
        return refused(f"the exponent of approach 3 is {NOT_IDENTIFIED} ({seen.why})")
    jacobian = fit.problem.law.expand(fit.theta[None]).jacobian[0].T  # (points, 5)
    follows = np.linalg.pinv(jacobian)
    shifts = {m.budget: _shift(m, rows, fit.theta, follows) for m in enclosed}
    noise_of_shifts = np.linalg.norm(np.concatenate([s.log_params_slope for s in shifts.values()]))
    own = np.linalg.norm(np.concatenate([vertex_slope(m) for m in enclosed]))
    if not noise_of_shifts < own:
        return refused(
            "the points give the bend of the law less well than the minima that it would correct"
        )
    predicted = np.exp(fit.problem.law.log_loss(fit.theta[None])[0])
    found = Correction("", shifts, index, predicted, jacobian, follows, fit.theta)
    within = noise_of.combine(residuals(minima, found, trunk))
    reason = _misfit(fit, within.relative, within.degrees_of_freedom)
    return refused(reason) if reason else found


def refused(reason: str) -> Correction:
    """No correction."""
    nothing = np.empty((0, 0))
    return Correction(reason, {}, np.empty(0, int), np.empty(0), nothing, nothing, np.empty(0))


def residuals(
    minima: Sequence[Minimum], correction: Correction, trunk: NDArray[np.intp]
) -> list[Residuals]:
    """What parabolas leave of a model's enclosed minima; `trunk` numbers those of the whole table.
    With a correction it is that of measured less predicted losses: the bend that parabolas miss is
    no noise."""
    enclosed = [(m, m.parabola) for m in minima if m.params is not None and m.parabola]
    if not enclosed:
        return []
    under = np.concatenate([m.rows for m, _ in enclosed]).astype(int)
    parabolas = [parabola for _, parabola in enclosed]
    if not correction.shifts:
        ends = np.cumsum([len(parabola.loss) for parabola in parabolas])
        own = np.split(np.arange(len(under)), ends[:-1])
        values = np.concatenate([p.residuals / p.level for p in parabolas])
        return [Residuals(values, of_parabolas(parabolas, own, len(under)), trunk[under], under)]
    places = [np.array(correction.places(m), np.intp) for m, _ in enclosed]
    maker = of_parabolas(parabolas, places, len(correction.index))
    apart = np.zeros(len(correction.index))  # of points under no parabola: no residual looks there
    for parabola, place in zip(parabolas, places, strict=True):
        apart[place] = (parabola.loss - correction.predicted[place]) / parabola.level
    law = maker.after(correction.jacobian, correction.follows)
    return [Residuals(maker.of(apart), law, trunk[correction.index], under)]


def _unfit(rows: pd.DataFrame, enclosed: list[Minimum], noise: Noise) -> str:
    if not enclosed:
        return "no budget has an enclosed minimum"
    if len(rows) <= 5:
        return f"approach 3 has five parameters and there are only {plural(len(rows), 'point')}"
    if not noise.known:
        return (
            "no degree of freedom is left to estimate the noise that approach 3 would have to meet"
        )
    return ""


def _lost(fit: LawFit) -> str:
    """Why this law has no minimum; empty where it has."""
    gone = any(term.exponent for term in vanished(fit))
    if gone or min(fit.theta[1], fit.theta[3]) <= 0:
        return "the law of approach 3 has lost a term, so it has no minimum"
    return ""


def _misfit(fit: LawFit, noise: float, degrees_of_freedom: float) -> str:
    """That the law misses the points by more than their noise; empty where it does not."""
    from scipy.special import fdtri

    spare = fit.problem.points - len(fit.theta)
    variance = float(np.sum(fit.residuals**2)) / spare
    if variance > fdtri(spare, degrees_of_freedom, 1 - MISFIT) * noise**2:
        times = np.sqrt(variance) / noise if noise else np.inf
        return f"approach 3 misses these points by {times:.3g} times their noise"
    return ""


def vertex_slope(minimum: Minimum) -> Floats:
    """Change of a parabola's vertex for a relative error of each point under it."""
    parabola = minimum.parabola
    assert parabola is not None
    _, c1, c2 = parabola.coefficients
    gradient = parabola.half_width * np.array([0, -0.5 / c2, 0.5 * c1 / c2**2])
    return np.asarray(parabola.level * gradient @ parabola.inverse)


def _shift(minimum: Minimum, rows: pd.DataFrame, theta: Floats, follows: Floats) -> Shift:
    parabola, line = minimum.parabola, minimum.tokens_line
    assert parabola is not None
    assert line is not None
    law = Chinchilla.of(rows.loc[list(minimum.rows)])
    steps = STEP * np.eye(len(theta))
    sets = np.concatenate([theta[None], theta + steps, theta - steps])
    missed = _missed(parabola, law, line, sets)  # (2, sets)
    n = len(theta)
    slopes = (missed[:, 1 : n + 1] - missed[:, n + 1 :]) / (2 * STEP) @ follows
    return Shift(float(missed[0, 0]), float(missed[1, 0]), slopes[0], slopes[1])


def _missed(
    parabola: Parabola, law: Chinchilla, line: tuple[float, float], theta: Floats
) -> Floats:
    """log(params) and loss of the parabola's minimum less the law's own, (2, sets)."""
    c0, c1, c2 = parabola.inverse @ np.exp(law.log_loss(theta)).T
    u = -0.5 * c1 / c2
    log_a, alpha, log_b, beta, log_e = theta.T
    level, slope = line
    # Where A/N^alpha + B/D^beta is flat along log D = level + slope log N.
    with np.errstate(invalid="ignore", divide="ignore"):
        best = log_a + np.log(alpha) - log_b - np.log(-slope * beta) + beta * level
        best = best / (alpha - beta * slope)
    lowest = np.exp(log_a - alpha * best) + np.exp(log_b - beta * (level + slope * best))
    lowest += np.exp(log_e)
    vertex = parabola.centre + parabola.half_width * u
    return np.stack([vertex - best, c0 + c1 * u + c2 * u * u - lowest])
