"""The best loss and size of L = E + A/N^alpha + B/D^beta along log D = p + q log N + r log C.

Tokens follow from size and compute as the points have them, so no FLOP convention is assumed; where
C = 6 N D the plane is (-log 6, -1, 1). Flat in log N where alpha A N^-alpha = -q beta B D^-beta, so
that log N_opt is a line in log C, and L* = E + K C^-gamma.
"""

import numpy as np
import pandas as pd

from analysis.fits.parametric.laws import Floats

Plane = tuple[float, float, float]


def plane_of(rows: pd.DataFrame) -> Plane:
    """p, q and r by least squares over points with params, budget (FLOPs) and tokens."""
    logs = np.log(rows[["params", "budget", "tokens"]].to_numpy(float))
    design = np.column_stack([np.ones(len(logs)), logs[:, :2]])
    p, q, r = np.linalg.lstsq(design, logs[:, 2], rcond=None)[0].tolist()
    return p, q, r


def best_size(theta: Floats, plane: Plane, log_budget: float) -> Floats:
    """log N_opt of each parameter set (A, alpha, B, beta, E; logs of A, B, E), (sets,)."""
    p, q, r = plane
    log_a, alpha, log_b, beta, _ = theta.T
    with np.errstate(invalid="ignore", divide="ignore"):
        level = log_a + np.log(alpha) - log_b - np.log(-q * beta) + beta * (p + r * log_budget)
        return np.asarray(level / (alpha - beta * q))


def frontier(theta: Floats, plane: Plane) -> tuple[Floats, Floats, Floats]:
    """E, log K and gamma of each parameter set, (sets,)."""
    p, q, r = plane
    log_a, alpha, log_b, beta, log_e = theta.T
    start = best_size(theta, plane, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        gamma = alpha * beta * r / (alpha - beta * q)
        size, data = log_a - alpha * start, log_b - beta * (p + q * start)
        return np.exp(log_e), np.logaddexp(size, data), gamma


def best_log_loss(theta: Floats, plane: Plane, log_budget: float) -> Floats:
    """log L* of each parameter set, (sets,)."""
    floor, level, gamma = frontier(theta, plane)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.log(floor + np.exp(level - gamma * log_budget)))


def bend(theta: Floats, plane: Plane, log_budget: float) -> Floats:
    """d^2 log L / d(log N)^2 at the best size of each parameter set, (sets,)."""
    p, q, r = plane
    log_a, alpha, log_b, beta, _ = theta.T
    size = best_size(theta, plane, log_budget)
    tokens = p + q * size + r * log_budget
    of_size = 2 * np.log(alpha) + log_a - alpha * size
    of_data = 2 * np.log(-q * beta) + log_b - beta * tokens
    return np.asarray(
        np.exp(np.logaddexp(of_size, of_data) - best_log_loss(theta, plane, log_budget))
    )
