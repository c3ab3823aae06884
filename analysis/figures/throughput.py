"""Throughput against log-likelihood (paper figure 4a), from measurements that the user gives."""

import json
from pathlib import Path

import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import AnalysisError
from analysis.figures import style
from analysis.formatting import listing

NEEDED = ("model", "tokens_per_s", "nll")
FILLS: tuple[style.Fill, ...] = ("full", "none", "left")


def read_throughput(path: Path) -> pd.DataFrame:
    """Points with model, tokens_per_s and nll (nats per token), and perhaps batch: a CSV with these
    columns, or the JSON that `benchmarks/throughput.py --json` prints.

    Raises AnalysisError where it cannot be read or a number is missing.
    """
    is_json = path.suffix == ".json"
    try:
        table = _of_benchmark(path) if is_json else pd.read_csv(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        wanted = (
            "give what benchmarks/throughput.py --json printed"
            if is_json
            else f"give a file with the columns {', '.join(NEEDED)} and perhaps batch"
        )
        raise AnalysisError(
            f"--throughput {path} cannot be read as {'JSON' if is_json else 'CSV'} "
            f"({_said(error)}): {wanted}."
        ) from error
    missing = [column for column in NEEDED if column not in table]
    if missing:
        raise AnalysisError(
            f"--throughput {path} has no column {listing(missing)} (it has "
            f"{listing(table.columns, 12)}): give {', '.join(NEEDED)} and perhaps batch."
        )
    numbers = table[["tokens_per_s", "nll"]].apply(pd.to_numeric, errors="coerce")
    if table.empty or not (numbers > 0).to_numpy().all():
        raise AnalysisError(
            f"--throughput {path} needs a positive tokens_per_s and nll on every line: fix it."
        )
    batch = table["batch"].astype(str) if "batch" in table else "all"
    return table.assign(**{name: numbers[name] for name in numbers}, batch=batch)


def _of_benchmark(path: Path) -> pd.DataFrame:
    return pd.DataFrame(json.loads(path.read_text())["points"])


def _said(error: Exception) -> str:
    return f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)


def draw(table: pd.DataFrame, folder: Path, stem: str) -> style.SavedFigure:
    """A mark per model and batch; models of one batch are comparable, so fills mark batches."""
    models = style.ordered(list(dict.fromkeys(table["model"])))
    batches = list(dict.fromkeys(table["batch"]))
    colours = style.colours_of(models)
    with style.publication_style():
        legend_rows = -(-len(models) // 3)
        figure, (axes,) = style.stacked(1, 2.0, 0.14 + 0.16 * legend_rows)
        for _, row in table.iterrows():
            axes.plot(
                row["tokens_per_s"],
                -row["nll"],
                linestyle="none",
                color=colours[row["model"]],
                marker=style.MARKERS[models.index(row["model"]) % len(style.MARKERS)],
                fillstyle=FILLS[batches.index(row["batch"]) % len(FILLS)],
                markersize=5.5,
            )
        axes.set_xlabel("Throughput (tokens per second)")
        axes.set_ylabel("Log-likelihood\n(nats per token)")
        axes.margins(0.12)
        axes.set_xlim(left=0)
        marks = [
            Line2D([], [], color=colours[m], marker=mark, linestyle="none", label=m)
            for m, mark in zip(models, style.MARKERS * len(models), strict=False)
        ]
        figure.legend(handles=marks, loc="lower center", ncols=3)
        if len(batches) > 1:
            fills = [
                Line2D([], [], color=style.INK, marker="o", fillstyle=fill, linestyle="none")
                for fill, _ in zip(FILLS, batches, strict=False)
            ]
            axes.legend(
                fills,
                [batch if " " in batch else f"batch {batch}" for batch in batches],
                loc="best",
            )
        style.save(figure, table, folder, stem)
    fastest = table.sort_values("tokens_per_s").iloc[-1]
    return style.SavedFigure(
        stem,
        "Throughput against log-likelihood",
        alt=f"Log-likelihood against throughput of {listing(models)}; fastest: {fastest['model']} "
        f"at {fastest['tokens_per_s']:g} tokens per second.",
        caption="Measurements from the file that was given with --throughput.",
        width=style.COLUMN_WIDTH,
    )
