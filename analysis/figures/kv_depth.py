"""Keys and values across depths (paper appendix): their magnitude, and how alike depths are.

Reads `kv_statistics` of a run's `result.json`: `key_norm` and `value_norm`, one mean Euclidean norm
a depth; `key_cosine` and `value_cosine`, mean cosine between two depths' vectors of one position.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from analysis.figures import style
from analysis.paper.runs import Run

KINDS = {"key": ("#0072B2", "o"), "value": ("#D55E00", "s")}


def has_statistics(run: Run) -> bool:
    """Whether keys and values of a recursive model were measured."""
    return bool(run.result.kv_statistics) and run.recursions > 1


def draw(run: Run, folder: Path, stem: str) -> style.SavedFigure:
    """Norms by depth above, the cosines between depths of keys and of values below."""
    found = run.kv_statistics
    with style.publication_style():
        figure, (norms, cosines) = style.stacked(2, 1.85, 0.05, run.run_id)
        for kind, (colour, marker) in KINDS.items():
            values = np.asarray(found[f"{kind}_norm"], float)
            depths = np.arange(1, len(values) + 1)
            norms.plot(depths, values, color=colour, marker=marker, markersize=3, label=f"{kind}s")
        norms.set_ylabel("Mean norm")
        norms.set_xlabel("Depth (layer as executed)")
        norms.xaxis.set_major_locator(MaxNLocator(integer=True))
        # Above the panel: among the points its marks read as some of them.
        norms.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
        box = cosines.get_subplotspec()
        assert box is not None
        cosines.remove()
        halves = box.subgridspec(1, 2)
        panels = [figure.add_subplot(halves[0, i]) for i in range(2)]
        for axes, kind in zip(panels, KINDS, strict=True):
            values = np.asarray(found[f"{kind}_cosine"], float)
            end = len(values) + 0.5
            image = axes.imshow(
                values,
                cmap="cividis",
                vmin=min(0, values.min()),
                vmax=1,
                extent=(0.5, end, end, 0.5),
            )
            axes.grid(False)
            axes.set_title(f"Cosine, {kind}s", loc="left")
            axes.set_xlabel("Depth")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        figure.colorbar(image, ax=panels, shrink=0.8)
        style.save(figure, kv_data(run), folder, stem)
    return style.SavedFigure(
        stem,
        "Keys and values across depths",
        alt="Norm of keys and values at each depth, and the cosine between depths.",
        caption=f"Mean norms, and mean cosine between the vectors of one position at two depths. "
        f"Run {run.run_id}.",
        width=style.COLUMN_WIDTH,
    )


def kv_data(run: Run) -> pd.DataFrame:
    """Rows of (kind, measure, depth, other depth, value), depths from 1."""
    found = run.kv_statistics
    rows: list[tuple[str, str, int, int | None, float]] = []
    for kind in KINDS:
        rows += [(kind, "norm", i, None, v) for i, v in enumerate(found[f"{kind}_norm"], 1)]
        for i, line in enumerate(found[f"{kind}_cosine"], 1):
            rows += [(kind, "cosine", i, j, v) for j, v in enumerate(line, 1)]
    return pd.DataFrame(rows, columns=["kind", "measure", "depth", "other_depth", "value"])
