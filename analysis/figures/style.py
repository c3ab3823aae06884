"""One look for every figure: widths, type, colours, ticks, and how a figure is saved.

Drawn with `matplotlib.figure.Figure`, not pyplot: no global state, no display, a faster start.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib
import matplotlib.backends.backend_pdf
import matplotlib.backends.backend_svg  # here, so that workers do not import them one by one
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from analysis.files import as_csv, write_whole
from analysis.parallel import spread
from analysis.points.series import ordered as ordered

COLUMN_WIDTH = 3.25  # inches: one column of a two-column page
PAGE_WIDTH = 7.0

# Okabe and Ito's colours, distinct with any colour vision; an architecture always has its own.
COLOURS = {
    "vanilla": "#0072B2",
    "recursive": "#D55E00",
    "mor": "#009E73",
    "mor_token": "#CC79A7",
}
OTHER_COLOURS = ("#56B4E9", "#E69F00", "#7F5539", "#5E4FA2")
MARKERS = ("o", "s", "^", "D", "v", "P")
Fill = Literal["full", "none", "left"]
INK = "#222222"
MUTED = "#666666"
MANY_PANELS = 12  # of a figure that takes seconds to draw
DASHED = (0, (4, 2))
NAME_HEIGHT = 0.13  # inches, of a run's name
NAME_LENGTH = 58  # characters that a column holds

_RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 8,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    # Text stays text, so that a figure can be searched and edited.
    "svg.fonttype": "none",
    "svg.hashsalt": "analysis",
    "pdf.fonttype": 42,
}


@contextmanager
def publication_style() -> Iterator[None]:
    """Draw and save inside this."""
    with matplotlib.rc_context(cast(Any, _RC)):
        yield


def colours_of(models: Sequence[str]) -> dict[str, str]:
    """A colour for each model: the fixed one where it has one, else the next of the others."""
    others = [model for model in sorted(models) if model not in COLOURS]
    spare = {model: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, model in enumerate(others)}
    return {model: COLOURS.get(model) or spare[model] for model in models}


def shades(colour: str, number: int) -> list[tuple[float, float, float]]:
    """From a light to a dark shade of one colour, lightest first."""
    red, green, blue = to_rgb(colour)
    steps = [1.0] if number == 1 else [i / (number - 1) for i in range(number)]
    mixed = []
    for step in steps:
        # Below 0.6 towards white (never paler than print can hold), above it towards black.
        white, black = max(0.0, 0.5 - 0.75 * step), max(0.0, 0.75 * (step - 0.65))
        r, g, b = (((1 - white) * c + white) * (1 - black) for c in (red, green, blue))
        mixed.append((r, g, b))
    return mixed


def log_axis(
    axes: Axes,
    low: float,
    high: float,
    margin: float,
    ticks: Sequence[float],
    text: Callable[[float], str],
) -> None:
    """Log x axis over [low, high] and `margin` of it beyond, with these ticks and no minor ones."""
    axes.set_xscale("log")
    axes.set_xlim(*widened(low, high, margin))
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_major_formatter(FixedFormatter([text(tick) for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_tick_params(labelbottom=True)


def widened(low: float, high: float, margin: float) -> tuple[float, float]:
    """The range with `margin` of its logarithmic width added on either side."""
    beyond = 10 ** (margin * max(math.log10(high / low), 0.3))
    return low / beyond, high * beyond


def panel_grid(
    number: int, most_columns: int, row_height: float, strip: float
) -> tuple[Figure, list[Axes], int]:
    """A figure with that many panels in even rows, above a strip (inches) free for legends.

    Returns the figure, the panels and the number of columns.
    """
    rows = math.ceil(number / most_columns)
    columns = math.ceil(number / rows)
    width = COLUMN_WIDTH if number == 1 else PAGE_WIDTH
    height = row_height * rows + strip
    figure = Figure(figsize=(width, height))
    # The legend has a strip of its own, so that it hides no point.
    share = strip / height
    figure.set_layout_engine("constrained", rect=(0, share, 1, 1 - share))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in grid[number:]:
        unused.remove()
    return figure, list(grid[:number]), columns


def stacked(
    number: int, row_height: float, strip: float, run_id: str = ""
) -> tuple[Figure, list[Axes]]:
    """Panels one over the other in one column's width, above a strip (inches) free for legends;
    a figure of a single run has its name at the top."""
    height = row_height * number + strip + (NAME_HEIGHT if run_id else 0)
    figure = Figure(figsize=(COLUMN_WIDTH, height))
    figure.set_layout_engine("constrained", rect=(0, strip / height, 1, 1 - strip / height))
    if run_id:
        shown = run_id if len(run_id) <= NAME_LENGTH else f"…{run_id[1 - NAME_LENGTH :]}"
        figure.suptitle(shown, x=0.99, ha="right", fontsize=6, color=MUTED, parse_math=False)
    return figure, list(figure.subplots(number, 1, squeeze=False).ravel())


def level(axes: Axes, height: float, text: str) -> None:
    """A dashed horizontal line across the panel, named at its right end."""
    axes.axhline(height, color=MUTED, linestyle=DASHED, linewidth=0.9, zorder=1)
    axes.annotate(
        text,
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(0, 1),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=6.5,
        color=MUTED,
    )


def near(axes: Axes, x: float, y: float, text: str, above: bool) -> None:
    """A small word above a point, or below it."""
    axes.annotate(
        text,
        (x, y),
        xytext=(0, 4 if above else -4),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "top",
        fontsize=6,
        color=MUTED,
    )


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` ticks at 1, 2, 5 x 10^k, or 1, 3, or powers of ten: the finest that fit."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    plans = [([1.0, 1.5, 2, 3, 4, 5, 7], 1), ([1.0, 2, 5], 1), ([1.0, 3], 1)]
    plans += [([1.0], stride) for stride in range(1, 30)]
    for digits, stride in plans:
        ticks = [d * 10.0**p for p in powers if p % stride == 0 for d in digits]
        inside = [tick for tick in ticks if low <= tick <= high]
        if 0 < len(inside) <= most:
            return inside
    return [low, high]


def thinned(values: Sequence[float], closest: float) -> list[float]:
    """Values at least `closest` (in log10) apart: first and last stay, the middle gives way."""
    kept = [values[0]]
    for value in values[1:-1]:
        if min(math.log10(value / kept[-1]), math.log10(values[-1] / value)) >= closest:
            kept.append(value)
    return kept + [value for value in values[-1:] if value not in kept]


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk: `<stem>.png`, `.svg`, `.pdf` and `.csv` in one folder."""

    stem: str
    title: str
    alt: str
    caption: str
    width: float

    def name(self, suffix: str) -> str:
        """The file's name, relative to the folder."""
        return f"{self.stem}.{suffix}"


def save(figure: Figure, data: pd.DataFrame, folder: Path, stem: str) -> None:
    """The figure in three formats and its data, each file whole or absent."""
    # Without dates the same points give the same bytes.
    metadata: dict[str, dict[str, str | None]] = {
        "png": {"Software": None},
        "svg": {"Date": None},
        "pdf": {"CreationDate": None},
    }

    def content(suffix: str) -> bytes:
        stream = io.BytesIO()
        figure.savefig(stream, format=suffix, dpi=200, metadata=metadata[suffix])
        return stream.getvalue()

    first, *others = metadata
    contents = [content(first)]
    figure.set_layout_engine("none")  # the first format has laid it out for all
    contents += spread(content, others, least=2 if len(figure.axes) >= MANY_PANELS else 3)
    for suffix, written in zip(metadata, contents, strict=True):
        write_whole(folder / f"{stem}.{suffix}", written)
    write_whole(folder / f"{stem}.csv", as_csv(data))
