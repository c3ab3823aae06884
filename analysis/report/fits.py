"""The three approaches side by side: an exponent with its interval, or the reason for none."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.errors import AnalysisError
from analysis.fits.envelope import fit_envelope
from analysis.fits.isoflop import IsoflopResult, PowerLaw
from analysis.fits.parametric import lawfit
from analysis.fits.parametric.laws import Chinchilla
from analysis.fits.parametric.optimum import LawFit
from analysis.parallel import spread
from analysis.points.curves import from_points, validated
from analysis.points.series import ordered
from analysis.points.table import curve_of

APPROACHES = {
    1: "Approach 1: lower envelope of the sizes' curves",
    2: "Approach 2: parabola at each budget",
    3: "Approach 3: L = E + A/N^alpha + B/D^beta",
}
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Exponent:
    """N_opt ~ C^a and D_opt ~ C^b by one approach; `reason` says why there is none.

    `n_opt`: the compute-optimal parameters at the largest budget, by the same fit.
    """

    model: str
    approach: int
    a: float | None = None
    a_interval: Interval = None
    b: float | None = None
    b_interval: Interval = None
    reason: str = ""
    warnings: tuple[Caution, ...] = ()
    law: str = ""
    n_opt: float | None = None

    @property
    def name(self) -> str:
        """The approach in words."""
        return APPROACHES[self.approach]


def exponents(
    table: pd.DataFrame, result: IsoflopResult, loss: str | None = None
) -> list[Exponent]:
    """Every model by every approach, with the resamples and the seed of the isoFLOP fit.

    `table` needs the column trunk, missing where points share none. With `loss` (causal | topk),
    approach 1 takes the validations on the way of a model whose every size has them; otherwise,
    and for all others, its finished points.
    """

    def of_model(name: str) -> list[Exponent]:
        rows = table[curve_of(table) == name]
        return [
            _or_refusal(partial(_envelope, loss=loss), 1, name, rows, result),
            _isoflop(name, result),
            _or_refusal(_law, 3, name, rows, result),
        ]

    found = spread(of_model, ordered(list(result.models)))
    return [exponent for of_one in found for exponent in of_one]


Fit = Callable[[str, pd.DataFrame, IsoflopResult], Exponent]


def _or_refusal(
    fit: Fit, approach: int, model: str, rows: pd.DataFrame, result: IsoflopResult
) -> Exponent:
    try:
        return fit(model, rows, result)
    except AnalysisError as error:
        return Exponent(model, approach, reason=str(error))


def _envelope(model: str, rows: pd.DataFrame, result: IsoflopResult, loss: str | None) -> Exponent:
    seen = validated(rows, loss) if loss else None
    curves = from_points(rows) if seen is None else seen
    done = fit_envelope(model, curves, resamples=result.resamples, seed=result.seed)
    largest = float(rows["budget"].max())
    found = _of_laws(model, 1, done.params_law, done.tokens_law, done.warnings, largest)
    if seen is None:
        return found
    return replace(found, law=f"{done.n_points} validations on the way of {done.n_curves} sizes")


def _isoflop(model: str, result: IsoflopResult) -> Exponent:
    frontier = result.models[model]
    laws, largest = (frontier.params_law, frontier.tokens_law), frontier.minima[-1].budget
    return _of_laws(model, 2, *laws, (*frontier.warnings, frontier.note), largest)


def _of_laws(
    model: str,
    approach: int,
    a: PowerLaw,
    b: PowerLaw,
    warnings: tuple[Caution, ...],
    largest: float,
) -> Exponent:
    """The warning that says why there is no exponent is the reason; the others stay warnings."""
    why = [w for w in warnings if w.code is Code.NO_EXPONENT]
    reason = why[0].reason if why else ""
    rest = tuple(w for w in warnings if w.code is not Code.NO_EXPONENT)
    known = a.coefficient is not None and a.exponent is not None
    n_opt = a.coefficient * largest**a.exponent if known else None  # type: ignore[operator]
    exponents = (a.exponent, a.interval, b.exponent, b.interval)
    return Exponent(model, approach, *exponents, reason, rest, n_opt=n_opt)


def _law(model: str, rows: pd.DataFrame, result: IsoflopResult) -> Exponent:
    asked = lawfit.Asked(resamples=result.resamples, seed=result.seed)
    done = lawfit.report(Chinchilla.of(rows), rows, asked)
    values, ends = done.fit.values, done.intervals.of
    lost = ends["a"] is None and result.resamples > 0 and bool(lawfit.vanished(done.fit))
    terms = ", ".join(f"{name} {values[name]:.4g}" for name in ("A", "alpha", "B", "beta", "E"))
    if done.not_identified:
        reason = done.not_identified.reason
        return Exponent(model, 3, reason=reason, warnings=done.warnings, law=terms)
    if lost:
        reason = "a term of the law has gone to zero, so neither exponent is held by the points"
        return Exponent(model, 3, reason=reason, warnings=done.warnings, law=terms)
    found = (values["a"], ends["a"], values["b"], ends["b"])
    n_opt = optimum_of_law(done.fit, rows)
    return Exponent(model, 3, *found, "", done.warnings, terms, n_opt)


def optimum_of_law(fit: LawFit, rows: pd.DataFrame) -> float | None:
    """The size at which a fitted law is lowest at the largest budget of `rows`.

    Tokens follow from size as they do among the points of that budget (a line in log-log), so no
    convention is assumed. None where fewer than two sizes were trained there, or where the law
    has no minimum within a factor of 1,000 of them.
    """
    top = rows[rows["budget"] == rows["budget"].max()]
    if top["params"].nunique() < 2:
        return None
    log_params, log_tokens = np.log(top["params"].to_numpy(float)), np.log(top["tokens"])
    slope, level = np.polyfit(log_params, log_tokens.to_numpy(float), 1)
    beyond = np.log(1000)
    sizes = np.linspace(log_params.min() - beyond, log_params.max() + beyond, 4001)
    losses = Chinchilla(sizes, level + slope * sizes).log_loss(fit.theta[None])[0]
    best = int(losses.argmin())
    return None if best in (0, len(sizes) - 1) else float(np.exp(sizes[best]))
