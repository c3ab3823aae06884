"""The minimum of one model at one budget: a parabola, and whether its points enclose a minimum.

Units: budgets in FLOPs (under the convention of the points), loss in nats per token.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.fits.parabola import Floats, Parabola, fit_parabola
from analysis.formatting import count, plural

# Far from the minimum the loss is not a parabola in log N, so a budget of many sizes is cut to
# those within a factor of its lowest: width counts, not how densely it is filled.
WIDE_GRID = 7
REACH = 2.0
LEAST_SIZES = 3  # on either side
DEFAULT_WINDOW = (
    f"all of {WIDE_GRID} sizes or fewer, of more those within a factor of {REACH:g} of the lowest, "
    f"{LEAST_SIZES} on either side at least"
)
WIDER = 2  # sizes on either side that always keep three of three or more


class Status(StrEnum):
    """Whether a parabola has a minimum that its points enclose."""

    INTERIOR = "interior"
    EDGE = "edge"
    NOT_CONVEX = "not convex"
    TOO_FEW = "too few points"
    NARROW = "narrow window"
    MISFIT = "poor fit"


@dataclass(frozen=True)
class Minimum:
    """One model at one budget.

    `params`, `tokens` (at the vertex) and `loss` are None unless the status is interior: an
    extrapolated minimum is not a number to quote. `lowest_*` is the best size that was measured.
    `n_points` counts the points under the parabola, and `rows` names them in the table.
    `uncorrected` is the parabola's own vertex where the three are corrected for its bias.
    """

    budget: float
    status: Status
    reason: str
    n_points: int
    lowest_params: float
    lowest_loss: float
    params: float | None = None
    tokens: float | None = None
    loss: float | None = None
    parabola: Parabola | None = None
    tokens_line: tuple[float, float] | None = None
    params_interval: tuple[float, float] | None = None
    rows: tuple[int, ...] = ()
    uncorrected: "Vertex | None" = None

    @property
    def best_size(self) -> float:
        """Parameters of the enclosed minimum, else of the lowest loss that was measured."""
        return self.lowest_params if self.params is None else self.params


@dataclass(frozen=True)
class Vertex:
    """Where a parabola is lowest: parameters, tokens, and nats per token."""

    params: float
    tokens: float
    loss: float


def fit_minimum(points: pd.DataFrame, *, window: int | None = None) -> Minimum:
    """The parabola and its status for the points of one model at one budget."""
    # A total order, so that no sum depends on the order of the rows.
    points = points.sort_values(["params", "loss", "tokens"])
    params, loss = points["params"].to_numpy(float), points["loss"].to_numpy(float)
    budget = float(points["budget"].iloc[0])
    sizes, size_of = np.unique(params, return_inverse=True)
    # Seeds of one size count once when the lowest size is looked for.
    mean_loss = np.bincount(size_of, weights=loss) / np.bincount(size_of)
    lowest = int(np.argmin(mean_loss))
    inside = in_window(sizes, lowest, window)[size_of]
    measured = float(sizes[lowest]), float(mean_loss[lowest])
    kept = len(np.unique(size_of[inside]))
    if kept < 3 <= len(sizes):
        # Only the lowest at an end has fewer than two neighbours within a window.
        reason = (
            f"--window {window} keeps {kept} of {plural(len(sizes), 'size')} tested, and a "
            f"parabola needs three: type --window {WIDER}"
        )
        return Minimum(budget, Status.NARROW, reason, int(inside.sum()), *measured)
    if kept < 3:
        reason = f"{plural(len(sizes), 'size')} tested, a parabola needs three"
        return Minimum(budget, Status.TOO_FEW, reason, int(inside.sum()), *measured)
    parabola = fit_parabola(np.log(params[inside]), loss[inside])
    status, reason = _judge(parabola, sizes, lowest)
    if status is not Status.INTERIOR:
        return Minimum(budget, status, reason, int(inside.sum()), *measured, parabola=parabola)
    vertex = parabola.vertex
    tokens_line = line(np.log(params[inside]), np.log(points["tokens"].to_numpy(float)[inside]))
    return Minimum(
        budget,
        status,
        reason,
        int(inside.sum()),
        *measured,
        params=float(np.exp(vertex)),
        tokens=float(np.exp(tokens_line[0] + tokens_line[1] * vertex)),
        loss=float(parabola.loss_at(np.exp(vertex))),
        parabola=parabola,
        tokens_line=tokens_line,
        rows=tuple(points.index[inside]),
    )


def in_window(sizes: Floats, lowest: int, window: int | None = None) -> NDArray[np.bool_]:
    """Which of the sorted sizes a parabola is fitted to: the `window` nearest on either side of the
    lowest; with None all of seven sizes or fewer, and of more those within a factor of 2, three on
    either side at least."""
    apart = np.abs(np.arange(len(sizes)) - lowest)
    if window is not None:
        return np.asarray(apart <= window)
    near = np.abs(np.log(sizes / sizes[lowest])) <= np.log(REACH) * (1 + 1e-9)
    return np.asarray(near | (apart <= LEAST_SIZES) | (len(sizes) <= WIDE_GRID))


def _judge(parabola: Parabola, sizes: Floats, lowest: int) -> tuple[Status, str]:
    if not parabola.convex:
        return Status.NOT_CONVEX, "the parabola through the points opens downwards or is flat"
    if lowest in (0, len(sizes) - 1):
        end = "smallest" if lowest == 0 else "largest"
        return Status.EDGE, f"the lowest loss is at the {end} size tested, {count(sizes[lowest])}"
    if not parabola.log_params[0] < parabola.vertex < parabola.log_params[-1]:
        side = "below" if parabola.vertex <= parabola.log_params[0] else "above"
        return Status.EDGE, f"the parabola's vertex lies {side} the sizes it is fitted to"
    return Status.INTERIOR, "the points enclose the minimum"


def line(x: Floats, y: Floats) -> tuple[float, float]:
    """Intercept and slope of the least-squares line."""
    slope = float(np.dot(x - x.mean(), y - y.mean()) / np.dot(x - x.mean(), x - x.mean()))
    return float(y.mean() - slope * x.mean()), slope
