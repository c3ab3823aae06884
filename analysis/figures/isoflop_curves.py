"""IsoFLOP curves (paper figure 5a): a panel per architecture, loss against size at each budget."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.compare import verdict
from analysis.figures import style
from analysis.fits.isoflop import IsoflopResult, ModelFrontier
from analysis.fits.minimum import Minimum
from analysis.formatting import compute, count
from analysis.points.table import PointSet, curve_of

COLUMNS = 3
ROW_HEIGHT = 2.4  # inches
MARGIN = 0.22  # of the width, on either side: room for the word beside a ring
LEGEND_MOST = 6
PATH = (0, (4, 2))

Shade = tuple[float, float, float]


def draw(result: IsoflopResult, points: PointSet, folder: Path, stem: str) -> style.SavedFigure:
    """Draw, save under `folder` and describe."""
    models = style.ordered(list(result.models))
    budgets = sorted(points.table["budget"].unique())
    legend_columns = 3 if len(models) == 1 else LEGEND_MOST
    legend_rows = math.ceil(min(len(budgets), LEGEND_MOST) / legend_columns)
    with style.publication_style():
        strip = 0.4 + 0.17 * legend_rows
        figure, panels, columns = style.panel_grid(len(models), COLUMNS, ROW_HEIGHT, strip)
        for axes, model in zip(panels, models, strict=True):
            axes.sharey(panels[0])
            _draw_panel(axes, result.models[model], points, budgets)
            axes.set_title(model, loc="left")
        for number, axes in enumerate(panels):
            if number % columns:
                axes.yaxis.set_tick_params(labelleft=False)
            else:
                axes.set_ylabel(verdict.loss_label(points))
        _legend(figure, points, budgets, legend_columns)
        style.save(figure, figure_data(result, points), folder, stem)
    return style.SavedFigure(
        stem,
        "IsoFLOP curves",
        alt=_alt(result, models),
        caption="Loss against size at each budget. Curves: parabolas, over the sizes they are "
        "fitted to; points outside are faint. Stars: minima that the points enclose, joined by the "
        "path that the power law is fitted to. Hollow rings: the lowest measured size where there "
        "is no such minimum.",
        width=float(figure.get_size_inches()[0]),
    )


def _draw_panel(
    axes: Axes, frontier: ModelFrontier, points: PointSet, budgets: list[float]
) -> None:
    colour = style.colours_of(sorted(curve_of(points.table).unique()))[frontier.model]
    shades = dict(zip(budgets, style.shades(colour, len(budgets)), strict=True))
    markers = _markers(budgets)
    table = points.table[curve_of(points.table) == frontier.model]
    for minimum in frontier.minima:
        shade, marker = shades[minimum.budget], markers[minimum.budget]
        _draw_points(axes, table[table["budget"] == minimum.budget], minimum, shade, marker)
        if minimum.parabola is not None:
            axes.plot(*_curve(minimum), color=shade, linewidth=1.1, zorder=2)
    path = frontier.interior
    axes.plot(
        np.array([m.params for m in path], float),
        np.array([m.loss for m in path], float),
        color=style.INK,
        linewidth=0.9,
        linestyle=PATH,
        zorder=4,
    )
    for minimum in frontier.minima:
        _draw_minimum(axes, minimum, shades[minimum.budget])
    low, high = points.table["params"].min(), points.table["params"].max()
    ticks = style.round_ticks(*style.widened(low, high, MARGIN), most=5)
    style.log_axis(axes, low, high, MARGIN, ticks, count)
    axes.set_xlabel(verdict.params_label(points))


def _draw_points(
    axes: Axes, points: pd.DataFrame, minimum: Minimum, shade: Shade, marker: str
) -> None:
    """Measured points; those outside the window of the fit are faint."""
    fitted = np.ones(len(points), bool)
    if minimum.parabola is not None:
        low, high = minimum.parabola.log_params[[0, -1]]
        log_params = np.log(points["params"])
        fitted = ((log_params >= low) & (log_params <= high)).to_numpy()
    for chosen, alpha in ((fitted, 1.0), (~fitted, 0.3)):
        axes.plot(
            points["params"][chosen],
            points["loss"][chosen],
            linestyle="none",
            marker=marker,
            color=shade,
            alpha=alpha,
            markersize=3.5,
            markeredgewidth=0,
            zorder=3,
        )


def _draw_minimum(axes: Axes, minimum: Minimum, shade: Shade) -> None:
    if minimum.params is not None and minimum.loss is not None:
        axes.plot(
            minimum.params,
            minimum.loss,
            marker="*",
            markersize=10,
            color=shade,
            markeredgecolor=style.INK,
            markeredgewidth=0.6,
            zorder=5,
        )
        return
    axes.plot(
        minimum.lowest_params,
        minimum.lowest_loss,
        marker="o",
        markersize=8,
        color="none",
        markeredgecolor=style.INK,
        markeredgewidth=0.8,
        zorder=5,
    )
    _label_ring(axes, minimum)


def _label_ring(axes: Axes, minimum: Minimum) -> None:
    """The status beside its ring, on the side where no curve runs."""
    left = minimum.parabola is not None and (
        np.log(minimum.lowest_params) <= minimum.parabola.log_params[0]
    )
    axes.annotate(
        str(minimum.status).replace(" ", "\n", 1),
        (minimum.lowest_params, minimum.lowest_loss),
        xytext=(-6 if left else 6, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        linespacing=0.9,
        fontsize=6.5,
        color=style.INK,
        zorder=6,
    )


def _markers(budgets: list[float]) -> dict[float, str]:
    # Shapes distinguish budgets in grey print too; with many budgets shapes would only be noise.
    few = len(budgets) <= len(style.MARKERS)
    return {budget: style.MARKERS[i] if few else "o" for i, budget in enumerate(budgets)}


def _curve(minimum: Minimum) -> tuple[np.ndarray, np.ndarray]:
    assert minimum.parabola is not None
    low, high = minimum.parabola.log_params[[0, -1]]
    sizes = np.exp(np.linspace(low, high, 60))
    return sizes, minimum.parabola.loss_at(sizes)


def _legend(figure: Figure, points: PointSet, budgets: list[float], columns: int) -> None:
    greys, markers = style.shades("#777777", len(budgets)), _markers(budgets)
    # Too many budgets for a line: an even choice of them, first and last included.
    shown = np.unique(np.linspace(0, len(budgets) - 1, LEGEND_MOST).round().astype(int))
    lines = [
        Line2D([], [], color=greys[i], marker=markers[budgets[i]], label=compute(budgets[i]))
        for i in (shown if len(budgets) > LEGEND_MOST else range(len(budgets)))
    ]
    star = Line2D([], [], color=style.INK, marker="*", markersize=8, linestyle=PATH, linewidth=0.9)
    star.set_label("interior minimum, path")
    ring = Line2D([], [], color="none", marker="o", markersize=7, markeredgecolor=style.INK)
    ring.set_label("lowest size, no minimum")
    height = figure.get_size_inches()[1]
    figure.legend(
        handles=lines,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.16 / height),
        ncols=columns,
        title=verdict.budget_label(points),
        title_fontsize=7,
        columnspacing=1.2,
        handlelength=1.6,
    )
    figure.legend(handles=[star, ring], loc="lower center", bbox_to_anchor=(0.5, 0), ncols=2)


def figure_data(result: IsoflopResult, points: PointSet) -> pd.DataFrame:
    """What the figure shows: measured points, parabolas over their windows, minima."""
    columns = ["model", "budget", "params", "loss", "seed", "run_id"]
    parts = [points.table.assign(model=curve_of(points.table))[columns].assign(kind="point")]
    for model, frontier in result.models.items():
        for minimum in frontier.minima:
            parts.append(_minimum_data(model, minimum))
    data = pd.concat(parts, ignore_index=True)
    return data.reindex(columns=["kind", *columns, "status"])


def _minimum_data(model: str, minimum: Minimum) -> pd.DataFrame:
    interior = minimum.params is not None
    star = {
        "kind": "minimum" if interior else "lowest size",
        "params": minimum.params if interior else minimum.lowest_params,
        "loss": minimum.loss if interior else minimum.lowest_loss,
        "status": str(minimum.status),
    }
    rows = pd.DataFrame([star])
    if minimum.parabola is not None:
        sizes, losses = _curve(minimum)
        curve = pd.DataFrame({"kind": "parabola", "params": sizes, "loss": losses})
        rows = pd.concat([curve, rows], ignore_index=True)
    return rows.assign(model=model, budget=minimum.budget)


def _alt(result: IsoflopResult, models: list[str]) -> str:
    parts = []
    for model in models:
        states = ", ".join(f"{compute(m.budget)} {m.status}" for m in result.models[model].minima)
        parts.append(f"{model}: {states}")
    return f"Loss against parameters at each budget; minima: {'; '.join(parts)}."
