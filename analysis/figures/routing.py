"""What a router does: scores of selected tokens (paper figure 5b), loss by depth allowed (5c).

Both read the `routing` of a run's `result.json`, measured during its final validation.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from analysis.figures import style
from analysis.paper.runs import Run

# Routers that give each token a depth once: no recursion selects by rank.
CHOOSE_A_DEPTH = frozenset({"token"})
CHOSEN, LEFT = "#0072B2", "#E69F00"


def has_scores(run: Run) -> bool:
    """Whether the scores of a router that selects by rank were measured; one of a user's own may
    have none."""
    histogram = run.routing.get("score_histogram") or {}
    chosen = any(sum(counts) for counts in histogram.get("unselected", []))
    return chosen and run.router not in CHOOSE_A_DEPTH


def has_depths(run: Run) -> bool:
    """Whether the loss was measured with fewer recursions allowed."""
    return len(run.routing.get("nll_by_depth") or []) > 1


def draw_scores(run: Run, folder: Path, stem: str) -> style.SavedFigure:
    """Figure 5b of one run: a panel per recursion, tokens selected and not, by router score."""
    data = score_data(run)
    recursions = sorted(data["recursion"].unique())
    with style.publication_style():
        figure, panels = style.stacked(len(recursions), 0.85, 0.52, run.run_id)
        for axes, recursion in zip(panels, recursions, strict=True):
            axes.sharex(panels[0])
            here = data[data["recursion"] == recursion]
            edges = np.append(here["low"].to_numpy(), here["high"].iloc[-1])
            total = here["selected"].sum() + here["unselected"].sum()
            for column, colour, hatch in (("unselected", LEFT, "////"), ("selected", CHOSEN, None)):
                axes.stairs(
                    here[column] / max(total, 1),
                    edges,
                    fill=True,
                    facecolor=(colour, 0.45),
                    edgecolor=colour,
                    linewidth=0.9,
                    hatch=hatch,
                )
            share = here["selected"].sum() / max(total, 1)
            axes.set_title(f"Recursion {recursion}: {share:.0%} selected", loc="left")
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.margins(x=0.02)
            axes.set_ylim(bottom=0)
            if axes is not panels[-1]:
                axes.xaxis.set_tick_params(labelbottom=False)
        figure.supylabel("Share of tokens", fontsize=8)
        figure.supxlabel(
            f"Router score, after {run.setting('model.router.activation', 'its activation')}",
            fontsize=8,
            y=0.26 / figure.get_size_inches()[1],
            va="bottom",
        )
        figure.legend(
            handles=[
                Patch(facecolor=(CHOSEN, 0.45), edgecolor=CHOSEN, label="selected"),
                Patch(facecolor=(LEFT, 0.45), edgecolor=LEFT, hatch="////", label="not selected"),
            ],
            loc="lower center",
            ncols=2,
        )
        style.save(figure, data, folder, stem)
    return style.SavedFigure(
        stem,
        "Router scores",
        alt="Histogram of router scores of selected and unselected tokens; mean score "
        + "; ".join(_means(data, recursion) for recursion in recursions)
        + ".",
        caption=f"Scores of the tokens that reach each recursion, those selected and those not, "
        f"top-k selection over validation text. Run {run.run_id}.",
        width=style.COLUMN_WIDTH,
    )


def score_data(run: Run) -> pd.DataFrame:
    """Counts of tokens by recursion (from 1) and bin of the router's score."""
    histogram = run.routing["score_histogram"]
    edges = np.asarray(histogram["edges"], float)
    parts = [
        pd.DataFrame(
            {
                "recursion": number,
                "low": edges[:-1],
                "high": edges[1:],
                "selected": np.asarray(selected, int),
                "unselected": np.asarray(unselected, int),
            }
        )
        for number, (selected, unselected) in enumerate(
            zip(histogram["selected"], histogram["unselected"], strict=True), start=1
        )
        if sum(unselected)  # a recursion that takes every token selects nothing
    ]
    return pd.concat(parts, ignore_index=True)


def _means(data: pd.DataFrame, recursion: int) -> str:
    here = data[data["recursion"] == recursion]
    middle = 0.5 * (here["low"] + here["high"])
    means = [
        f"{np.average(middle, weights=here[kind]):.3g} {kind}"
        for kind in ("selected", "unselected")
        if here[kind].sum()
    ]
    return f"at recursion {recursion} {' and '.join(means)}"


def draw_depths(runs: list[Run], folder: Path, stem: str) -> style.SavedFigure:
    """Figure 5c: log-likelihood as tokens may take more recursions, a line for each run."""
    data = depth_data(runs)
    names = list(dict.fromkeys(data["model"]))
    colours = style.colours_of(names)
    with style.publication_style():
        figure, (axes,) = style.stacked(1, 1.9, 0.24)
        handles = []
        for name, marker in zip(names, style.MARKERS * len(names), strict=False):
            here = data[data["model"] == name]
            axes.plot(here["recursions"], -here["nll"], marker=marker, color=colours[name])
            handles.append(Line2D([], [], color=colours[name], marker=marker, label=name))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("Recursions allowed at most")
        axes.set_ylabel("Log-likelihood\n(nats per token)")
        axes.margins(x=0.08)
        figure.legend(handles=handles, loc="lower center", ncols=3)
        style.save(figure, data, folder, stem)
    gains = [
        f"{name} {here['nll'].iloc[0] - here['nll'].iloc[-1]:+.4f} from the first to the last"
        for name, here in data.groupby("model", sort=False)
    ]
    return style.SavedFigure(
        stem,
        "Log-likelihood by depth",
        alt=f"Log-likelihood against recursions allowed: {'; '.join(gains)}.",
        caption="Validation log-likelihood, causal routing, when no token may take more than that "
        "many recursions.",
        width=style.COLUMN_WIDTH,
    )


def depth_data(runs: list[Run]) -> pd.DataFrame:
    """Loss (nats per token) by run and by the most recursions that a token may take."""
    rows = [
        {"model": run.result.model, "run_id": run.run_id, "recursions": r, "nll": nll}
        for run in runs
        for r, nll in enumerate(run.routing["nll_by_depth"], start=1)
    ]
    return pd.DataFrame(rows)
