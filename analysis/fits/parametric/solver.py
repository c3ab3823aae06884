"""Fits of a law for many starts at once: score all, polish the best, say how sure it is.

Minimised is the *sum* over points of Huber_delta(predicted log loss - log loss), as published
(Hoffmann et al. 2022, equation 3), or with `raw` of half the squares of predicted loss - loss, in
nats, as variable projection does (arXiv 2603.22339). A step solves damped normal equations twice:
with Huber as weights min(1, delta / |r|) (IRLS, safe far away) and with the true second derivatives
(fast near the end, where a weight still in motion makes IRLS crawl), and takes the better of the
two.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.fits.parametric.laws import Expansion, Floats, Law

DELTA = 1e-3
STEPS = 300
# A step that promises less than this share of the objective is not taken: the sum's own rounding.
TOLERANCE = 1e-13
LARGEST = 300.0  # of a predicted log loss; its square is still a float
CHUNK = 2_000_000  # numbers in one (sets, points) array
BLOCK = 50_000  # the same while polishing: its dozen arrays then stay in the processor's cache


@dataclass(frozen=True)
class Problem:
    """A law, the log losses it is to meet, and where Huber turns from squares to absolute values.

    `weights` is None for a plain fit, (points,) or (sets, points) for weighted ones; `log_loss` is
    (points,), or (sets, points) where each parameter set has losses of its own.
    """

    law: Law
    log_loss: Floats
    delta: float = DELTA
    weights: Floats | None = None
    raw: bool = False  # squares of the loss itself, and no delta

    def sets_of(self, sets: NDArray[np.intp]) -> "Problem":
        """The problem for some of the parameter sets."""
        losses = self.log_loss if self.log_loss.ndim == 1 else self.log_loss[sets]
        weights = self.weights
        if weights is not None and weights.ndim == 2:
            weights = weights[sets]
        return replace(self, log_loss=losses, weights=weights)

    def at(self, rows: NDArray[np.bool_]) -> "Problem":
        """The problem at some of the points, each of them counted once."""
        return replace(self, law=self.law.take(rows), log_loss=self.log_loss[rows], weights=None)

    @property
    def points(self) -> int:
        """How many points there are."""
        return self.log_loss.shape[-1]


@dataclass(frozen=True)
class Polished:
    """Where each start ended."""

    theta: Floats
    objective: Floats
    gradient: Floats  # Euclidean norm, in the coordinates of theta
    steps: int

    def each(self, which: NDArray[np.intp]) -> "Polished":
        """The ends of these starts, in this order."""
        return Polished(self.theta[which], self.objective[which], self.gradient[which], self.steps)


def score(problem: Problem, theta: Floats) -> Floats:
    """The objective of each parameter set, (sets,)."""
    size = max(1, CHUNK // problem.points)
    parts = [np.arange(i, min(i + size, len(theta))) for i in range(0, len(theta), size)]
    return np.concatenate(
        [_objective(p := problem.sets_of(part), _residual(p, theta[part])) for part in parts]
    )


def _residual(problem: Problem, theta: Floats) -> Floats:
    log_loss = problem.law.log_loss(theta)
    if not problem.raw:
        return log_loss - problem.log_loss
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(log_loss) - np.exp(problem.log_loss))


def _objective(problem: Problem, residual: Floats) -> Floats:
    if problem.raw:
        with np.errstate(over="ignore"):
            huber = 0.5 * residual * residual
    else:
        size = np.abs(residual)
        inner = np.minimum(size, problem.delta)
        huber = inner * (size - 0.5 * inner)
    with np.errstate(invalid="ignore"):  # no weight times a square without end: no number
        total = huber if problem.weights is None else huber * problem.weights
    return np.asarray(total.sum(axis=1))


def polish(
    problem: Problem, theta: Floats, steps: int = STEPS, held: int | None = None
) -> Polished:
    """Descend from every row of `theta` until no step helps.

    Column `held` of theta stays as it is: the objective along it is its profile.
    """
    size = max(8, BLOCK // problem.points)
    parts = [np.arange(i, min(i + size, len(theta))) for i in range(0, max(len(theta), 1), size)]
    ended = [_polish(problem.sets_of(part), theta[part], steps, held) for part in parts]
    return Polished(
        np.concatenate([one.theta for one in ended]),
        np.concatenate([one.objective for one in ended]),
        np.concatenate([one.gradient for one in ended]),
        max(one.steps for one in ended),
    )


def _polish(problem: Problem, theta: Floats, steps: int, held: int | None) -> Polished:
    theta = theta.copy()
    objective = score(problem, theta)
    gradient = np.full(len(theta), np.inf)
    damping = np.full(len(theta), 1e-2)
    active = np.flatnonzero(np.isfinite(objective))
    step = 0
    if not len(active):
        return Polished(theta, objective, gradient, step)
    for step in range(1, steps + 1):  # noqa: B007
        here = problem.sets_of(active)
        slope, irls, newton = _normal_equations(here, theta[active])
        if held is not None:
            _hold(held, slope, irls, newton)
        gradient[active] = np.sqrt((slope * slope).sum(axis=1))
        moves = [_move(matrix, irls, slope, damping[active]) for matrix in (irls, newton)]
        tried = np.stack([score(here, theta[active] + move) for move in moves])
        tried = np.where(np.isfinite(tried), tried, np.inf)
        better = tried.argmin(axis=0)
        chosen = np.where((better == 0)[:, None], *moves)
        lowest = tried.min(axis=0)
        improved = lowest < objective[active]
        promise = np.abs((slope * chosen).sum(axis=1))
        theta[active[improved]] += chosen[improved]
        damping[active] = np.where(improved, damping[active] * 0.1, damping[active] * 8)
        ended = (promise <= TOLERANCE * objective[active]) | (damping[active] > 1e12)
        objective[active[improved]] = lowest[improved]
        active = active[~ended]
        if not len(active):
            break
    return Polished(theta, objective, gradient, step)


def _hold(column: int, slope: Floats, *matrices: Floats) -> None:
    """Take a column out of the normal equations: its step is zero, the others' as if it were not
    there."""
    slope[:, column] = 0
    for matrix in matrices:
        matrix[:, column, :] = 0
        matrix[:, :, column] = 0
        matrix[:, column, column] = 1


def _move(matrix: Floats, scale: Floats, slope: Floats, damping: Floats) -> Floats:
    columns = np.arange(slope.shape[1])
    size = scale[:, columns, columns]
    floor = 1e-14 * size.max(axis=1, keepdims=True) + 1e-300
    damped = matrix.copy()
    damped[:, columns, columns] += damping[:, None] * size + floor
    try:
        return np.asarray(-np.linalg.solve(damped, slope[:, :, None])[:, :, 0])
    except np.linalg.LinAlgError:
        return np.asarray(-(np.linalg.pinv(damped) @ slope[:, :, None])[:, :, 0])


def _normal_equations(problem: Problem, theta: Floats) -> tuple[Floats, Floats, Floats]:
    """Gradient (sets, P), IRLS matrix and Hessian (sets, P, P) of the objective."""
    law = problem.law.expand(theta)
    if problem.raw:
        return _squares(problem, law)
    delta = problem.delta
    residual = law.log_loss - problem.log_loss
    force = np.clip(residual, -delta, delta)  # Huber's derivative
    inside = np.abs(residual) <= delta
    pull = np.where(inside, 1.0, delta / np.maximum(np.abs(residual), delta))
    curve = inside.astype(float)
    if problem.weights is not None:
        force, pull, curve = (v * problem.weights for v in (force, pull, curve))
    flipped = law.jacobian.transpose(0, 2, 1)
    slope = (law.jacobian @ force[:, :, None])[:, :, 0]
    irls = (law.jacobian * pull[:, None, :]) @ flipped
    hessian = (law.jacobian * (curve - force)[:, None, :]) @ flipped
    law.add_curvature(hessian, force)
    return slope, irls, hessian


def _squares(problem: Problem, law: Expansion) -> tuple[Floats, Floats, Floats]:
    """The same where the residual is in nats, P - L: its Jacobian is P times that of log P, its
    curvature P times that of P over P."""
    predicted = np.exp(np.minimum(law.log_loss, LARGEST))
    force = predicted - np.exp(problem.log_loss)
    once = np.ones_like(force) if problem.weights is None else problem.weights
    jacobian = law.jacobian * predicted[:, None, :]
    force = force * once
    slope = (jacobian @ force[:, :, None])[:, :, 0]
    gauss_newton = (jacobian * np.asarray(once)[..., None, :]) @ jacobian.transpose(0, 2, 1)
    hessian = gauss_newton.copy()
    law.add_curvature(hessian, force * predicted)
    return slope, gauss_newton, hessian


def condition(problem: Problem, theta: Floats) -> float:
    """Condition number of the curvature (IRLS) at one parameter set, scaled to a unit diagonal.

    A log coefficient and its exponent trade off merely because the log of their base lies far from
    zero; centring it takes that out, so that what is left is what the points cannot identify.
    """
    _, irls, _ = _normal_equations(problem, theta[None])
    centred = np.eye(len(theta))
    if not (np.diag(irls[0]) > 0).all():
        return 1e300
    names = problem.law.parameters
    for term in problem.law.terms:
        if term.exponent is None:
            continue
        level, slope = names.index(term.coefficient), names.index(term.exponent)
        centred[slope, level] = -irls[0, slope, level] / irls[0, level, level]
    matrix = centred @ irls[0] @ centred.T
    if not (np.diag(matrix) > 0).all():  # one size only: nothing is left of log N once centred
        return 1e300
    scale = np.sqrt(np.diag(matrix))
    return float(min(np.linalg.cond(matrix / np.outer(scale, scale)), 1e300))
