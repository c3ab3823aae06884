"""Sharing of keys and values (paper figure 4c): each model with its own ones and with shared."""

from enum import StrEnum
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.paper.components import NONE


class Kind(StrEnum):
    """Whose keys and values a depth attends to."""

    OWN = "own"
    SHARED = "shared"
    HYBRID = "hybrid"


KINDS: dict[Kind, tuple[str, style.Fill, float]] = {
    Kind.OWN: ("o", "full", 4.5),
    Kind.SHARED: ("s", "none", 5),
    Kind.HYBRID: ("D", "none", 7),
}
NAMES = {"middle_cycle": "middle cycle"}
# Cells of the table's column kv_sharing are `-`, or a pattern and a number; other patterns share.
KIND_OF = {NONE: Kind.OWN, "hybrid": Kind.HYBRID}
ROUTED = {"expert": "MoR, expert", "token": "MoR, token"}
ROUTED_COLOURS = {"expert": "mor", "token": "mor_token"}
ABOVE = frozenset({"cycle"})  # patterns whose word stands over the mark, clear of its neighbour's


def draw(rows: pd.DataFrame, folder: Path, stem: str, loss_label: str) -> style.SavedFigure:
    """Draw the rows of the table of KV sharing (`analysis.paper.tables`) with a column `source`.

    A panel per source, a line per model; filled: every depth or recursion has keys and values of
    its own; hollow: shared, or hybrid.
    """
    data = rows.assign(name=rows.apply(_name, axis=1), kind=rows["kv_sharing"].map(_kind))
    data["train_nll"] = data["train_nll"].astype(float)
    panels = list(data.groupby("source", sort=False))
    most = max(part["name"].nunique() for _, part in panels)
    with style.publication_style():
        figure, axes = style.stacked(len(panels), 0.62 + 0.24 * most, 0.3)
        for here, (source, part) in zip(axes, panels, strict=True):
            _panel(here, part)
            here.set_title(str(source), loc="left")
            here.set_xlabel("Loss (nats per token)")
        handles = [
            Line2D([], [], color=style.INK, marker=mark, fillstyle=fill, linestyle="none", label=k)
            for k, (mark, fill, _) in KINDS.items()
            if k in set(data["kind"])
        ]
        figure.legend(handles=handles, loc="lower center", ncols=3)
        kept = ["source", "name", "kind", "kv_sharing", "recursions", "train_nll"]
        style.save(figure, data[kept].rename(columns={"train_nll": "nll"}), folder, stem)
    return style.SavedFigure(
        stem,
        "Sharing of keys and values",
        alt="Loss of each model with its own keys and values and with shared ones. "
        + " ".join(_told(part) for _, part in panels),
        caption="Each model with keys and values of its own, shared between depths or recursions, "
        "and hybrid (shared, overwritten where a token is active). "
        f"Runs: {loss_label.replace(chr(10), ' ').lower()}; paper: training loss.",
        width=style.COLUMN_WIDTH,
    )


def _name(row: pd.Series) -> str:
    model = str(row["model"])
    if row["sharing"] == NONE:
        return model
    told = ROUTED.get(str(row["router"]), model)
    return f"{told}, {NAMES.get(row['sharing'], row['sharing'])}, Nr {row['recursions']}"


def _pattern(kv_sharing: str) -> str:
    """`cycle` of `cycle-2`."""
    return kv_sharing.rpartition("-")[0] or kv_sharing


def _kind(kv_sharing: str) -> Kind:
    return KIND_OF.get(_pattern(kv_sharing), Kind.SHARED)


def _colour(row: pd.Series) -> str:
    name = ROUTED_COLOURS.get(str(row["router"]), str(row["model"]))
    return style.COLOURS.get(name, style.INK)


def _panel(axes: Axes, part: pd.DataFrame) -> None:
    names = list(dict.fromkeys(part["name"]))
    for level, name in enumerate(names):
        rows = part[part["name"] == name]
        colour = _colour(rows.iloc[0])
        axes.plot(
            [rows["train_nll"].min(), rows["train_nll"].max()],
            [level, level],
            color=colour,
            linewidth=1.6,
            alpha=0.35,
        )
        for _, row in rows.sort_values("train_nll").iterrows():
            kind = row["kind"]
            marker, fill, size = KINDS[kind]
            axes.plot(
                row["train_nll"],
                level,
                marker=marker,
                fillstyle=fill,
                markersize=size,
                color=colour,
                linestyle="none",
            )
            if row["sharing"] == NONE and kind == Kind.SHARED:
                word = _pattern(str(row["kv_sharing"]))
                style.near(axes, row["train_nll"], level, word, above=word in ABOVE)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.7)
    axes.margins(x=0.12)


def _told(part: pd.DataFrame) -> str:
    said = []
    for name, rows in part.groupby("name", sort=False):
        mean = rows.groupby("kind")["train_nll"].mean()
        if {Kind.OWN, Kind.SHARED} <= set(mean.index):
            gap = mean[Kind.SHARED] - mean[Kind.OWN]
            said.append(f"{name}: {gap:+.4f} when shared")
    return f"{'; '.join(said)}." if said else ""
