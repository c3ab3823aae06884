"""Sharing of layers (paper figure 4b): loss of the four ways to tie them, beside vanilla models."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.formatting import count

STRATEGIES = ("cycle", "sequence", "middle_cycle", "middle_sequence")
DODGE = 0.09  # of the way to the next strategy, for each recursion more
TOO_NEAR = 0.1  # of the panel's losses
MARKERS = {2: "o", 3: "s", 4: "^"}
COLUMNS = ["source", "base", "n_nonemb", "sharing", "recursions", "val_nll"]


def draw(rows: pd.DataFrame, folder: Path, stem: str, loss_label: str) -> style.SavedFigure:
    """Draw the rows of the table of sharing (`analysis.paper.tables`) with a column `source`.

    A panel per source and base size, a mark per strategy and number of recursions.
    Vanilla models (sharing `-`) are dashed lines: all layers, and the reduced ones under them.
    """
    data = rows[COLUMNS].copy()
    data["recursions"] = data["recursions"].astype(float).astype(int)
    data[["val_nll", "n_nonemb"]] = data[["val_nll", "n_nonemb"]].astype(float)
    panels = list(data.groupby(["source", "base"], sort=False))
    with style.publication_style():
        figure, axes = style.stacked(len(panels), 1.6, 0.24)
        for here, ((source, base), part) in zip(axes, panels, strict=True):
            _panel(here, part)
            here.set_title(f"{base}, {source}", loc="left")
            here.set_ylabel(loss_label)
        _legend(figure, data)
        style.save(figure, data, folder, stem)
    best = data[data["sharing"] != "-"].groupby(["source", "base"], sort=False)
    lowest = [
        f"{base} ({source}): {part.sort_values('val_nll')['sharing'].iloc[0]}"
        for (source, base), part in best
    ]
    return style.SavedFigure(
        stem,
        "Sharing of layers",
        alt=f"Loss of each way to share layers; the lowest: {'; '.join(lowest)}.",
        caption="Four ways to tie the layers of a recursive model. Dashed: vanilla models, with "
        "all layers and with as few as the tied ones have, named by their parameters.",
        width=style.COLUMN_WIDTH,
    )


def _panel(axes: Axes, part: pd.DataFrame) -> None:
    positions = {name: i for i, name in enumerate(STRATEGIES)}
    reach = float(part["val_nll"].max() - part["val_nll"].min())
    for heights, names in _apart(part[part["sharing"] == "-"], TOO_NEAR * reach):
        for height in heights[:-1]:
            style.level(axes, height, "")
        style.level(axes, heights[-1], ", ".join(names))
    colours = style.shades(style.COLOURS["recursive"], max(2, len(MARKERS)))
    tied = part[part["sharing"].isin(STRATEGIES)]
    for recursions, rows in tied.groupby("recursions"):
        mean = rows.groupby("sharing")["val_nll"].mean().rename(index=positions).sort_index()
        number = int(str(recursions))
        axes.plot(
            mean.index + DODGE * (number - 2.5),
            mean.to_numpy(),
            marker=MARKERS.get(number, "D"),
            markersize=5,
            linestyle="none",
            color=colours[min(max(number - 2, 0), len(colours) - 1)],
        )
    axes.set_xticks(range(len(STRATEGIES)), [name.replace("_", "\n") for name in STRATEGIES])
    axes.set_xlim(-0.4, len(STRATEGIES) - 0.1)
    axes.margins(y=0.14)


def _apart(vanilla: pd.DataFrame, least: float) -> list[tuple[list[float], list[str]]]:
    """Losses of the vanilla models from low to high, those too near for two names together."""
    groups: list[tuple[list[float], list[str]]] = []
    for _, row in vanilla.sort_values("val_nll").iterrows():
        height, name = float(row["val_nll"]), count(row["n_nonemb"])
        if groups and height - groups[-1][0][-1] < least:
            groups[-1][0].append(height)
            groups[-1][1].append(name)
        else:
            groups.append(([height], [name]))
    return groups


def _legend(figure: Figure, data: pd.DataFrame) -> None:
    colours = style.shades(style.COLOURS["recursive"], max(2, len(MARKERS)))
    numbers = sorted(set(data.loc[data["sharing"] != "-", "recursions"]))
    lines = [
        Line2D(
            [],
            [],
            color=colours[min(max(n - 2, 0), len(colours) - 1)],
            marker=MARKERS.get(n, "D"),
            label=f"{n} recursions",
            linestyle="none",
        )
        for n in numbers
    ]
    dashed = Line2D([], [], color=style.MUTED, linestyle=style.DASHED, linewidth=0.9)
    dashed.set_label("vanilla")
    figure.legend(
        handles=[*lines, dashed], loc="lower center", ncols=len(lines) + 1, columnspacing=1.2
    )
