"""A law that is taken as true, and how precisely runs under it would determine the exponent.

    L = E + A / N^alpha + B / D^beta,  a = beta / (alpha + beta)

Linearised at the truth, runs with independent noise of known size hold the information J^T J about
theta = (log A, alpha, log B, beta, log E), with the rows of J divided by their noise; the standard
error of a follows by the delta method. It is what approach 3 reaches with least squares. Units: N
in parameters, D in tokens, L, E and noise in nats per token.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.errors import AnalysisError
from analysis.fits.parametric.caution import NOT_IDENTIFIED, vanished
from analysis.fits.parametric.laws import Chinchilla, Floats
from analysis.fits.parametric.optimum import fit_law
from analysis.fits.parametric.profile import judged
from analysis.fits.parametric.solver import Problem

Z = 1.959964  # standard errors on either side of a 95 % interval
SINGULAR = 1e13


@dataclass(frozen=True)
class TrueLaw:
    """The law with its source; `sizes` are the parameters that it was fitted on, low and high."""

    A: float
    alpha: float
    B: float
    beta: float
    E: float
    source: str
    sizes: tuple[float, float]
    noise: float | None = None  # nats per token, where the fit's own residuals give it

    @property
    def theta(self) -> Floats:
        """(1, 5), as the solver has it."""
        with np.errstate(divide="ignore"):  # a law may have no floor
            floor = np.log(self.E)
        return np.array([[np.log(self.A), self.alpha, np.log(self.B), self.beta, floor]])

    def loss(self, params: Floats, tokens: Floats) -> Floats:
        """Nats per token of runs with these parameters and tokens."""
        law = Chinchilla(np.log(params), np.log(tokens))
        return np.asarray(np.exp(law.log_loss(self.theta)[0]))


# Besiroglu et al. 2024 (arXiv 2404.10102), who fitted the runs of Hoffmann et al. 2022 again.
PUBLISHED = TrueLaw(
    482.01, 0.3478, 2085.43, 0.3658, 1.8172, "published (arXiv 2404.10102)", (44e6, 16e9)
)


def law_of(rows: pd.DataFrame, source: str) -> TrueLaw:
    """Approach 3 through the points of one model, with the noise that its residuals show.

    Raises AnalysisError where there are too few points or all have one loss, a term of the law is
    gone, or the points do not hold the exponent.
    """
    try:
        fit = fit_law(Problem(Chinchilla.of(rows), np.log(rows["loss"].to_numpy(float))))
    except AnalysisError as error:
        raise AnalysisError(f"{source}: {error}") from error
    lost = [term.coefficient for term in vanished(fit)]
    if any(term.exponent for term in vanished(fit)):
        raise AnalysisError(
            f"The law through {source} has lost its term {' and '.join(lost)}, so it knows no "
            "exponent to design for: give more points, or --law published."
        )
    seen = judged(fit)
    if seen is not None and not seen.identified:
        raise AnalysisError(
            f"The exponent of the law through {source} is {NOT_IDENTIFIED}: {seen.why}; train some "
            "sizes on several times more and fewer tokens first, or design with --law published."
        )
    spread = fit.residuals * rows["loss"].to_numpy(float)  # log loss to nats
    noise = float(np.sqrt(np.sum(spread**2) / (len(rows) - len(fit.theta))))
    values = {name: fit.values[name] for name in fit.problem.law.parameters}
    sizes = float(rows["params"].min()), float(rows["params"].max())
    return TrueLaw(**values, source=source, sizes=sizes, noise=noise)


def information(law: TrueLaw, params: Floats, tokens: Floats, noise: float) -> Floats:
    """Fisher information of each run about theta, (runs, 5, 5); that of a design is the sum."""
    points = Chinchilla(np.log(params), np.log(tokens))
    known = points.expand(law.theta)
    jacobian = np.ascontiguousarray(known.jacobian[0].T)  # (runs, 5)
    scaled = jacobian * (np.exp(known.log_loss[0]) / noise)[:, None]
    return np.asarray(scaled[:, :, None] * scaled[:, None, :])


def half_width(law: TrueLaw, total: Floats) -> float:
    """Half of the expected 95 % interval of a, from the summed information; inf if it is open."""
    scale = np.sqrt(np.diag(total))
    if not (scale > 0).all():
        return float("inf")
    unit = total / np.outer(scale, scale)
    if np.linalg.cond(unit) > SINGULAR:
        return float("inf")
    covariance = np.linalg.inv(unit) / np.outer(scale, scale)
    slope = np.zeros(5)
    slope[1], slope[3] = -law.beta, law.alpha
    slope /= (law.alpha + law.beta) ** 2
    return float(Z * np.sqrt(slope @ covariance @ slope))
