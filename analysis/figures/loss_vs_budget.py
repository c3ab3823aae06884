"""Loss against budget (paper figure 3): a panel per base size, a line per architecture."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from analysis.compare import verdict
from analysis.figures import style
from analysis.formatting import compute, listing
from analysis.points.table import PointSet, curve_of

COLUMNS = 4
ROW_HEIGHT = 2.0  # inches
STRIP = 0.45


def can_draw(points: PointSet) -> bool:
    """Base sizes line architectures up, and a line needs two budgets."""
    table = points.table
    return bool(table["size"].notna().all() and table["budget"].nunique() > 1)


def same_sizes(points: PointSet, published: PointSet) -> bool:
    """Whether every size of the points is one of the published ones."""
    own, theirs = (set(table["size"].str.upper()) for table in (points.table, published.table))
    return bool(own) and own <= theirs


def draw(
    points: PointSet, folder: Path, stem: str, published: PointSet | None = None
) -> style.SavedFigure:
    """Draw, save under `folder` and describe; `published` points lie under the others, hollow and
    dashed, in the panels of their sizes."""
    data = figure_data(points)
    if published is not None:
        under = figure_data(published)
        data = data.assign(size=data["size"].str.upper(), source=points.source)
        data = pd.concat([data, under.assign(source=published.source)], ignore_index=True)
        sizes_of = points.table["size"].str.upper()
        points = replace(points, table=points.table.assign(size=sizes_of))
    table = points.table.assign(model=curve_of(points.table))
    sizes = list(table.groupby("size")["params"].max().sort_values().index)
    models = style.ordered(list(table["model"].unique()))
    colours = style.colours_of(models)
    with style.publication_style():
        figure, panels, columns = style.panel_grid(len(sizes), COLUMNS, ROW_HEIGHT, STRIP)
        for axes, size in zip(panels, sizes, strict=True):
            here = table[table["size"] == size]
            if published is not None:
                theirs = published.table[published.table["size"] == size]
                for model in models:
                    _draw_published(axes, theirs[theirs["model"] == model], model, models, colours)
            for model in models:
                _draw_line(axes, here[here["model"] == model], model, models, colours)
            shown = [table["budget"], *([] if published is None else [published.table["budget"]])]
            _budget_axis(axes, sorted(pd.concat(shown).unique()))
            axes.set_title(str(size), loc="left")
        for axes in panels[::columns]:
            axes.set_ylabel(verdict.loss_label(points))
        height = figure.get_size_inches()[1]
        figure.supxlabel(verdict.budget_label(points), fontsize=8, y=0.25 / height, va="bottom")
        lines = {line.get_label(): line for axes in panels for line in axes.get_lines()}
        handles = [lines[model] for model in models]
        figure.legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0), ncols=min(len(handles), 6)
        )
        style.save(figure, data, folder, stem)
    return style.SavedFigure(
        stem,
        "Loss against budget",
        alt=f"Loss against budget for {listing(models)}, a panel for each of "
        f"{listing(sizes)}. {_leaders(table)}",
        caption="A panel per base size, a line per architecture through the mean over seeds; "
        "panels have their own loss axis."
        + ("" if published is None else f" Hollow, dashed: {published.source}."),
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


def _draw_published(
    axes: Axes, points: pd.DataFrame, model: str, models: list[str], colours: dict[str, str]
) -> None:
    mean = points.groupby("budget")["loss"].mean()
    axes.plot(
        mean.index,
        mean.to_numpy(),
        marker=style.MARKERS[models.index(model) % len(style.MARKERS)],
        fillstyle="none",
        color=colours[model],
        linestyle=style.DASHED,
        linewidth=0.8,
        zorder=1.5,
    )


def _budget_axis(axes: Axes, budgets: list[float]) -> None:
    # The budgets themselves are the ticks; where they crowd, those between give way.
    span = math.log10(budgets[-1] / budgets[0])
    ticks = style.thinned(budgets, 0.34 * span)
    style.log_axis(axes, budgets[0], budgets[-1], 0.08, ticks, compute)


def figure_data(points: PointSet) -> pd.DataFrame:
    """The points as they are drawn."""
    columns = ["size", "model", "budget", "loss", "seed", "params", "run_id"]
    named = points.table.assign(model=curve_of(points.table))
    return named[columns].sort_values(["size", "model", "budget"], kind="stable")


def _leaders(table: pd.DataFrame) -> str:
    budget = table["budget"].max()
    last = table[table["budget"] == budget]
    mean = last.groupby(["size", "model"])["loss"].mean().reset_index()
    best = mean.loc[mean.groupby("size")["loss"].idxmin()]
    leads = "; ".join(f"{row['size']}: {row['model']}" for _, row in best.iterrows())
    return f"Lowest loss at {compute(budget)}: {leads}."
