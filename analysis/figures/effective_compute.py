"""Models against a baseline at equal compute: gap in loss, and effective compute multiplier."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.compare.equal_compute import Compared
from analysis.figures import style
from analysis.formatting import compute

DODGE = 0.02  # of the budgets' logarithmic range, so that intervals stand side by side


def draw(done: Compared, folder: Path, stem: str, in_bytes: bool = False) -> style.SavedFigure:
    """Gap (nats per token; `in_bytes`: bits per byte) and multiplier against budget, with 95 %
    intervals; hollow where there is no interval, or where the multiplier is extrapolated."""
    data = comparison_data(done)
    models = style.ordered(list(dict.fromkeys(data["model"])))
    colours = style.colours_of([*models, done.baseline])
    with style.publication_style():
        figure, (above, below) = style.stacked(2, 1.6, 0.26)
        for number, model in enumerate(models):
            rows = data[data["model"] == model].sort_values("budget")
            shift = style.widened(data["budget"].min(), data["budget"].max(), DODGE)[1]
            apart = (shift / data["budget"].max()) ** (number - (len(models) - 1) / 2)
            look = (colours[model], style.MARKERS[number % len(style.MARKERS)])
            _series(above, rows, "gap", apart, look)
            _series(below, rows.dropna(subset="multiplier"), "multiplier", apart, look)
        unit = "bits per byte" if in_bytes else "nats per token"
        above.axhline(0, color=style.MUTED, linestyle=style.DASHED, linewidth=0.8, zorder=1)
        below.axhline(1, color=style.MUTED, linestyle=style.DASHED, linewidth=0.8, zorder=1)
        above.set_ylabel(f"Loss less {done.baseline}'s\n({unit})")
        below.set_ylabel("Effective compute\nmultiplier")
        below.set_xlabel("Budget (FLOPs)")
        budgets = sorted(data["budget"].unique())
        for axes in (above, below):
            style.log_axis(
                axes, budgets[0], budgets[-1], 0.12, style.thinned(budgets, 0.1), compute
            )
        handles = [
            Line2D([], [], color=colours[m], marker=style.MARKERS[i % len(style.MARKERS)], label=m)
            for i, m in enumerate(models)
        ]
        handles.append(Line2D([], [], color=style.MUTED, linestyle=style.DASHED))
        handles[-1].set_label(done.baseline)
        figure.legend(handles=handles, loc="lower center", ncols=min(len(handles), 4))
        style.save(figure, data, folder, stem)
    told = [
        f"{row['model']} at {compute(row['budget'])} {row['gap']:+.4f}"
        for row in data.to_dict("records")
    ]
    return style.SavedFigure(
        stem,
        "Effective compute",
        alt=f"Loss less that of {done.baseline} at equal compute: {'; '.join(told)}.",
        caption=f"Best loss at each budget against {done.baseline}'s (below zero: better), and the "
        f"compute that {done.baseline} needs for the same loss, over the budget (above one: "
        "better). Bars: 95 % intervals. Hollow: no interval, or extrapolated.",
        width=style.COLUMN_WIDTH,
    )


def _series(
    axes: Axes, rows: pd.DataFrame, column: str, apart: float, look: tuple[str, str]
) -> None:
    colour, marker = look
    axes.plot(rows["budget"] * apart, rows[column], color=colour, linewidth=0.8)
    for row in rows.to_dict("records"):
        low, high = row[f"{column}_low"], row[f"{column}_high"]
        known = not pd.isna(low)
        if known:
            axes.plot(
                [row["budget"] * apart] * 2, [low, high], color=colour, linewidth=1.6, alpha=0.5
            )
        hollow = not known or (column == "multiplier" and row["extrapolated"])
        axes.plot(
            row["budget"] * apart,
            row[column],
            marker=marker,
            fillstyle="none" if hollow else "full",
            color=colour,
        )


def comparison_data(done: Compared) -> pd.DataFrame:
    """A row per model and budget, intervals as two columns each."""
    rows = []
    for c in done.comparisons:
        gap, multiplier = c.gap_interval or (None, None), c.multiplier_interval or (None, None)
        rows.append(
            {
                "model": c.model,
                "budget": c.budget,
                "gap": c.gap,
                "gap_low": gap[0],
                "gap_high": gap[1],
                "multiplier": c.multiplier,
                "multiplier_low": multiplier[0],
                "multiplier_high": multiplier[1],
                "extrapolated": c.extrapolated,
            }
        )
    return pd.DataFrame(rows)
