"""Loss against budget (paper figure 3): a panel per base size, a line per architecture."""

import math
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from analysis import verdict
from analysis.figures import style
from analysis.formatting import compute, listing
from analysis.points import PointSet

COLUMNS = 4
ROW_HEIGHT = 2.0  # inches
STRIP = 0.45


def can_draw(points: PointSet) -> bool:
    """Base sizes line architectures up, and a line needs two budgets."""
    table = points.table
    return bool(table["size"].notna().all() and table["budget"].nunique() > 1)


def draw(points: PointSet, folder: Path, stem: str) -> style.SavedFigure:
    """Draw, save under `folder` and describe."""
    table = points.table
    sizes = list(table.groupby("size")["params"].max().sort_values().index)
    models = style.ordered(list(table["model"].unique()))
    colours = style.colours_of(models)
    with style.publication_style():
        figure, panels, columns = style.panel_grid(len(sizes), COLUMNS, ROW_HEIGHT, STRIP)
        for axes, size in zip(panels, sizes, strict=True):
            here = table[table["size"] == size]
            for model in models:
                _draw_line(axes, here[here["model"] == model], model, models, colours)
            _budget_axis(axes, sorted(table["budget"].unique()))
            axes.set_title(str(size), loc="left")
        for axes in panels[::columns]:
            axes.set_ylabel(verdict.loss_label(points))
        height = figure.get_size_inches()[1]
        figure.supxlabel(verdict.budget_label(points), fontsize=8, y=0.25 / height, va="bottom")
        handles = {line.get_label(): line for axes in panels for line in axes.get_lines()}
        shown = [handles[model] for model in models]
        figure.legend(
            handles=shown, loc="lower center", bbox_to_anchor=(0.5, 0), ncols=min(len(shown), 6)
        )
        style.save(figure, figure_data(points), folder, stem)
    return style.SavedFigure(
        stem,
        "Loss against budget",
        alt=f"Loss against budget for {listing(models)}, a panel for each of "
        f"{listing(sizes)}. {_leaders(table)}",
        caption="A panel per base size, a line per architecture through the mean over seeds; "
        "panels have their own loss axis.",
        width=float(figure.get_size_inches()[0]),
    )


def _draw_line(
    axes: Axes, points: pd.DataFrame, model: str, models: list[str], colours: dict[str, str]
) -> None:
    if points.empty:
        return
    marker = style.MARKERS[models.index(model) % len(style.MARKERS)]
    mean = points.groupby("budget")["loss"].mean()
    axes.plot(mean.index, mean.to_numpy(), marker=marker, color=colours[model], label=model)
    if len(points) > len(mean):
        axes.scatter(points["budget"], points["loss"], s=6, color=colours[model], alpha=0.6)


def _budget_axis(axes: Axes, budgets: list[float]) -> None:
    # The budgets themselves are the ticks; where they crowd, those between give way.
    span = math.log10(budgets[-1] / budgets[0])
    ticks = style.thinned(budgets, 0.34 * span)
    style.log_axis(axes, budgets[0], budgets[-1], 0.08, ticks, compute)


def figure_data(points: PointSet) -> pd.DataFrame:
    """The points as they are drawn."""
    columns = ["size", "model", "budget", "loss", "seed", "params", "run_id"]
    return points.table[columns].sort_values(["size", "model", "budget"], kind="stable")


def _leaders(table: pd.DataFrame) -> str:
    budget = table["budget"].max()
    last = table[table["budget"] == budget]
    mean = last.groupby(["size", "model"])["loss"].mean().reset_index()
    best = mean.loc[mean.groupby("size")["loss"].idxmin()]
    leads = "; ".join(f"{row['size']}: {row['model']}" for _, row in best.iterrows())
    return f"Lowest loss at {compute(budget)}: {leads}."
