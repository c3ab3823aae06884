"""Curves of single sizes and their lower envelope (approach 1)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.fits.envelope import Envelope
from analysis.formatting import compute, count


def draw(
    done: Sequence[Envelope], curves: pd.DataFrame, folder: Path, stem: str
) -> style.SavedFigure:
    """A panel per model: loss against compute of each size (light to dark by size), and the
    envelope over the computes that enter the law."""
    models = style.ordered([envelope.model for envelope in done])
    by_model = {envelope.model: envelope for envelope in done}
    colours = style.colours_of(models)
    with style.publication_style():
        figure, panels = style.stacked(len(models), 1.7, 0.26)
        for axes, model in zip(panels, models, strict=True):
            here = curves[curves["model"] == model].sort_values("compute")
            sizes = sorted(here["params"].unique())
            shades = style.shades(colours[model], len(sizes))
            for shade, size in zip(shades, sizes, strict=True):
                rows = here[here["params"] == size].groupby("compute")["loss"].mean()
                axes.plot(rows.index, rows, color=shade, marker=".", linewidth=0.9)
            envelope = by_model[model]
            inside = np.where(envelope.interior, envelope.loss, np.nan)
            axes.plot(envelope.compute, envelope.loss, color=style.INK, linestyle=":", linewidth=1)
            axes.plot(envelope.compute, inside, color=style.INK, linewidth=1.8)
            low, high = float(here["compute"].min()), float(here["compute"].max())
            ticks = style.round_ticks(*style.widened(low, high, 0.05), most=4)
            style.log_axis(axes, low, high, 0.05, ticks, compute)
            ends = [count(sizes[0]), count(sizes[-1])]
            axes.set_title(f"{model}, {' to '.join(dict.fromkeys(ends))} parameters", loc="left")
            axes.set_ylabel("Loss\n(nats per token)")
        panels[-1].set_xlabel("Compute (FLOPs)")
        figure.legend(
            handles=[
                Line2D([], [], color=style.INK, linewidth=1.8, label="envelope"),
                Line2D([], [], color=style.INK, linestyle=":", linewidth=1, label="at an edge"),
                Line2D([], [], color=style.MUTED, marker=".", linewidth=0.9, label="one size"),
            ],
            loc="lower center",
            ncols=3,
        )
        style.save(figure, envelope_data(done, curves), folder, stem)
    told = [f"{e.model}: {int(e.interior.sum())} of {len(e.interior)} computes" for e in done]
    return style.SavedFigure(
        stem,
        "Lower envelope",
        alt=f"Loss against compute of each size and their lower envelope; inside the sizes "
        f"tested: {'; '.join(told)}.",
        caption="Curves of single sizes, darker for larger ones. The envelope is dotted where the "
        "lowest curve is the smallest or the largest size there.",
        width=style.COLUMN_WIDTH,
    )


def envelope_data(done: Sequence[Envelope], curves: pd.DataFrame) -> pd.DataFrame:
    """The curves' points, then the envelopes."""
    parts = [curves[["model", "params", "tokens", "loss", "compute"]].assign(kind="curve")]
    for e in done:
        columns = {name: getattr(e, name) for name in ("params", "tokens", "loss", "compute")}
        frame = pd.DataFrame({**columns, "interior": e.interior})
        parts.append(frame.assign(model=e.model, kind="envelope"))
    return pd.concat(parts, ignore_index=True)
