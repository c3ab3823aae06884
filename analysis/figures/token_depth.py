"""How deep each token of a text went (paper figure 1, right)."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch, Rectangle

from analysis.figures import style
from analysis.paper.runs import Run

COLUMNS = 54  # characters on a line
LINE = 0.135  # inches
MOST = 256  # tokens
TAB = "  "
Shade = tuple[float, float, float]
PALE: Shade = (0.90, 0.96, 0.94)
DARK: Shade = (0.0, 0.33, 0.24)


def has_sample(run: Run) -> bool:
    """Whether a text with the depth of each token was kept."""
    sample = run.routing.get("sample") or {}
    return bool(sample.get("text"))


def draw(run: Run, folder: Path, stem: str) -> style.SavedFigure:
    """The sample of one run's `routing`, each token on a ground as dark as it went deep."""
    data = lay_out(run.routing["sample"]["text"], run.routing["sample"]["depth"])
    depths = range(1, max(run.recursions, int(data["depth"].max())) + 1)
    grounds = dict(zip(depths, _grounds(len(depths)), strict=True))
    lines = int(data["line"].max()) + 1
    with style.publication_style():
        figure, (axes,) = style.stacked(1, LINE * lines + 0.1, 0.26, run.run_id)
        _draw_text(axes, data, grounds, lines)
        figure.legend(
            handles=[
                Patch(facecolor=grounds[d], edgecolor=style.MUTED, linewidth=0.4, label=_times(d))
                for d in depths
            ],
            loc="lower center",
            ncols=min(len(depths), 4),
        )
        style.save(figure, data[["position", "token", "depth"]], folder, stem)
    share = data.groupby("depth")["token"].size() / len(data)
    return style.SavedFigure(
        stem,
        "Depth of each token",
        alt="Text with the depth of each token; "
        + ", ".join(f"{value:.0%} took {depth}" for depth, value in share.items())
        + ".",
        caption=f"Recursions that each token of a validation text took, causal routing. "
        f"Run {run.run_id}.",
        width=style.COLUMN_WIDTH,
    )


def lay_out(text: list[str], depth: list[int]) -> pd.DataFrame:
    """Token by token: what is shown, and its line and column in a block of `COLUMNS` characters.

    A token that would cross the margin starts the next line; a line break in the text is shown
    as a sign and ends its line.
    """
    rows = []
    line = column = 0
    for position, (token, deep) in enumerate(zip(text[:MOST], depth[:MOST], strict=True)):
        shown = "".join(_visible(c) for c in token)[:COLUMNS] or "∅"
        if column + len(shown) > COLUMNS:
            line, column = line + 1, 0
        rows.append((position, token, int(deep), shown, line, column))
        column += len(shown)
        if "\n" in token:
            line, column = line + 1, 0
    return pd.DataFrame(rows, columns=["position", "token", "depth", "shown", "line", "column"])


def _times(depth: int) -> str:
    return "1 recursion" if depth == 1 else f"{depth} recursions"


def _visible(character: str) -> str:
    if character == "\n":
        return "↵"
    if character == "\t":
        return TAB
    return character if character.isprintable() else "·"


def _grounds(number: int) -> list[Shade]:
    """From nearly white to a dark shade: lightness alone distinguishes depths."""
    pale, full, dark = PALE, to_rgb(style.COLOURS["mor"]), DARK
    found = []
    for i in range(number):
        step = 2 * i / max(1, number - 1)
        start, end = (pale, full) if step <= 1 else (full, dark)
        share = step if step <= 1 else step - 1
        r, g, b = ((1 - share) * a + share * z for a, z in zip(start, end, strict=True))
        found.append((r, g, b))
    return found


def ink_on(ground: Shade) -> str:
    """White or black, whichever reads better (WCAG contrast; one of them reaches 4.5)."""
    light = _luminance(ground) + 0.05
    return "white" if 1.05 / light > light / 0.05 else "black"


def _luminance(colour: Shade) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _draw_text(axes: Axes, data: pd.DataFrame, grounds: dict[int, Shade], lines: int) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(lines, 0)
    for _, row in data.iterrows():
        ground = grounds[row["depth"]]
        width = len(row["shown"])
        axes.add_patch(
            Rectangle((row["column"], row["line"] + 0.04), width, 0.92, color=ground, linewidth=0)
        )
        for offset, character in enumerate(row["shown"]):
            if character == " ":
                continue
            axes.text(
                row["column"] + offset + 0.5,
                row["line"] + 0.52,
                # A dollar sign would begin mathematics.
                character.replace("$", r"\$"),
                family=["DejaVu Sans Mono"],
                fontsize=6.3,
                color=ink_on(ground),
                ha="center",
                va="center",
            )
