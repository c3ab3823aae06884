"""Before spending: how well a planned grid would give the exponent, and where it has no minimum.

The grid is trained many times on paper: losses of a law that is taken as true plus normal noise,
each time fitted as `analysis.fits.isoflop` fits (the same window, the same verdict on a minimum).
What comes out is the spread of the exponents, their bias (a parabola is not the law), and for each
budget the share of times that no minimum is enclosed. Approach 3 is judged by its information
(`analysis.design.law`). Noise is one run's, independent between runs: shared trunks make it worse.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.design.law import TrueLaw, half_width, information
from analysis.fits.bootstrap import slopes
from analysis.fits.minimum import in_window
from analysis.fits.parabola import FLAT
from analysis.fits.parametric.laws import Floats
from analysis.fits.resample import percentiles

FALLING = -0.1  # of log D over log N, below which a grid spends a budget
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class BudgetOutlook:
    """One budget of the grid. Risks are shares of the simulated studies."""

    budget: float
    sizes: int
    optimum: float  # the law's own best size, in parameters
    inside: bool  # whether the grid reaches beyond it on both sides
    risk: float  # no enclosed minimum
    smallest_risk: float  # of these: the lowest loss at the smallest size
    largest_risk: float


@dataclass(frozen=True)
class Outlook:
    """What to expect of a grid: a by approach 2 (simulated) and by approach 3 (linearised)."""

    model: str
    runs: int
    true_exponent: float | None
    exponent: float | None  # mean of the simulated fits
    interval: Interval
    no_exponent: float  # share of the simulated studies with fewer than two minima
    law_exponent: float
    law_half_width: float | None
    budgets: tuple[BudgetOutlook, ...]
    hours: float | None
    unit: str


def outlook(
    model: str, grid: pd.DataFrame, law: TrueLaw, noise: float, simulations: int, seed: int
) -> Outlook:
    """Simulate a grid: columns budget, params, tokens (a row for each run, seeds as rows), and
    gpu_hours with their unit where they are known. `noise` is in nats per token."""
    rng = np.random.default_rng(seed)
    budgets, found, vertices = [], [], []
    for budget, rows in grid.groupby("budget", sort=True):
        rows = rows.sort_values(["params", "tokens"])
        params, tokens = rows["params"].to_numpy(float), rows["tokens"].to_numpy(float)
        clean = law.loss(params, tokens)
        losses = clean + noise * rng.standard_normal((simulations, len(clean)))
        vertex, lowest = vertices_of(params, losses)
        optimum = _optimum(law, params, tokens)
        lost = np.isnan(vertex)
        last = len(np.unique(params)) - 1
        risks = (lost, lost & (lowest == 0), lost & (lowest == last))
        inside = bool(params.min() < optimum < params.max())
        budgets.append(float(budget))  # type: ignore[arg-type]
        shares = [float(risk.mean()) for risk in risks]
        found.append(BudgetOutlook(budgets[-1], last + 1, optimum, inside, *shares))
        vertices.append(vertex)
    log_budgets = np.log(budgets)
    fits = slopes(log_budgets, np.stack(vertices, axis=1))
    kept = fits[np.isfinite(fits)]
    true = slopes(log_budgets, np.log([[b.optimum for b in found]]))[0]
    told = information(law, grid["params"].to_numpy(float), grid["tokens"].to_numpy(float), noise)
    half = half_width(law, told.sum(axis=0))
    hours = grid["gpu_hours"].sum() if "gpu_hours" in grid else None
    return Outlook(
        model,
        len(grid),
        float(true) if np.isfinite(true) else None,
        float(kept.mean()) if len(kept) else None,
        percentiles(fits),
        float(np.isnan(fits).mean()),
        law.beta / (law.alpha + law.beta),
        half if np.isfinite(half) else None,
        tuple(found),
        None if hours is None else float(hours),
        str(grid["unit"].iloc[0]) if "unit" in grid else "",
    )


def vertices_of(params: Floats, losses: Floats) -> tuple[Floats, np.ndarray]:
    """log(params) of each enclosed minimum (studies,), NaN where there is none, and the index of
    the size with the lowest loss. `losses` is (studies, runs), `params` (runs,) and sorted.

    The rules are those of `analysis.fits.isoflop.fit_minimum`, for all studies at once.
    """
    sizes, size_of = np.unique(params, return_inverse=True)
    member = (size_of[:, None] == np.arange(len(sizes))).astype(float)
    lowest = (losses @ member / member.sum(axis=0)).argmin(axis=1)
    vertex = np.full(len(losses), np.nan)
    for best in np.unique(lowest):
        inside = in_window(sizes, int(best))[size_of]
        if best in (0, len(sizes) - 1) or len(np.unique(size_of[inside])) < 3:
            continue
        chosen = lowest == best
        vertex[chosen] = _parabolas(np.log(params[inside]), losses[chosen][:, inside])
    return vertex, lowest


def _parabolas(log_params: Floats, losses: Floats) -> Floats:
    centre, half = (
        0.5 * (log_params[-1] + log_params[0]),
        0.5 * (log_params[-1] - log_params[0]),
    )
    u = (log_params - centre) / half
    design = np.stack([np.ones_like(u), u, u * u], axis=1)
    _, c1, c2 = np.linalg.pinv(design) @ losses.T
    with np.errstate(divide="ignore", invalid="ignore"):
        at = -0.5 * c1 / c2
    good = (c2 > FLAT * np.abs(losses).max(axis=1)) & (np.abs(at) < 1)
    return np.where(good, centre + half * at, np.nan)


def _optimum(law: TrueLaw, params: Floats, tokens: Floats) -> float:
    """The law's best size at this budget, in closed form: A / N^alpha + B / D^beta is least along
    log D = level + slope log N. The slope is that of the grid's runs, whose tokens cost more than
    6 N where attention counts; a single size, or sizes that all have the same tokens, show none,
    and D = C / 6N stands in."""
    x, y = np.log(params), np.log(tokens)
    slope = np.polyfit(x, y, 1)[0] if len(np.unique(params)) > 1 else -1.0
    slope = float(slope) if slope < FALLING else -1.0
    level = float(y.mean() - slope * x.mean())
    ratio = np.log(law.alpha * law.A) - np.log(-slope * law.beta * law.B)
    return float(np.exp((ratio + law.beta * level) / (law.alpha - law.beta * slope)))
