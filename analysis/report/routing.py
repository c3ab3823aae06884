"""Routing figures of the page, from `result.json` "routing" of the runs that have it.

Shown are the best run of each model at each budget: a page with the histograms of a thousand runs
would say no more. Forms are checked here; a run whose "routing" has another form is named instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.formatting import compute
from analysis.points.table import curve_of

SERIES_UNSELECTED = 7


@dataclass(frozen=True)
class Routed:
    """One run's routing: facts for the table, charts, and a text with each token's depth."""

    run_id: str
    title: str
    facts: list[tuple[str, str]]
    charts: list[dict[str, Any]]
    sample: list[tuple[str, int]]
    recursions: int


@dataclass(frozen=True)
class Routing:
    """The shown runs, and those whose routing could not be read."""

    runs: list[Routed] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    not_shown: int = 0


def routing(table: pd.DataFrame, found: Mapping[str, dict[str, Any]]) -> Routing:
    """`found` holds "routing" by run id; `table` are the points."""
    routed = table[table["run_id"].isin(list(found))]
    best = routed.loc[routed.groupby([curve_of(routed), "budget"])["loss"].idxmin()]
    best = best.sort_values(["budget", "loss"], ascending=[False, True])
    runs, unread = [], []
    for row in best.to_dict("records"):
        name = f"{row['model']}, {row['size']} at {compute(row['budget'])} FLOPs"
        try:
            runs.append(_routed(str(row["run_id"]), name, found[row["run_id"]]))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            unread.append(str(row["run_id"]))
    return Routing(runs, unread, len(routed) - len(best))


def _routed(run_id: str, title: str, content: dict[str, Any]) -> Routed:
    shares = [float(share) for share in content["depth_share"]]
    number = len(shares)
    facts = [
        ("Measured on", f"{int(content['tokens']):,} validation tokens, {content['rule']} rule"),
        ("Mean depth", f"{float(content['mean_depth']):.3f} recursions a token"),
        (
            "Dead tokens",
            f"{float(content['dead_token_ratio']):.2%} of positions, never selected by "
            "the last recursion",
        ),
        ("Entropy", f"{float(content['entropy']):.3f} nats, of the mean selection probabilities"),
    ]
    if content.get("max_violation") is not None:
        value = float(content["max_violation"])
        facts.append(("MaxVio", f"{value:.3f}: load over its mean or target, less 1"))
    accuracy = content.get("sampling_accuracy")
    if accuracy:
        shown = [
            f"recursion {r}: {'selects every token' if a is None else f'{float(a):.1%}'}"
            for r, a in enumerate(accuracy, 1)
        ]
        facts.append(("Sampling accuracy", "; ".join(shown) + " (inference rule against top-k)"))
    charts = [_shares(shares)]
    if content.get("nll_by_depth"):
        charts.append(_by_depth([float(value) for value in content["nll_by_depth"]]))
    if content.get("score_histogram"):
        charts.append(_histograms(content["score_histogram"]))
    sample = content.get("sample") or {"text": [], "depth": []}
    tokens = [(str(t), int(d)) for t, d in zip(sample["text"], sample["depth"], strict=True)]
    return Routed(run_id, title, facts, charts, tokens, number)


def _ticks(number: int) -> list[dict[str, Any]]:
    return [{"at": r, "text": str(r)} for r in range(1, number + 1)]


def _shares(shares: list[float]) -> dict[str, Any]:
    items = [
        {"kind": "bar", "keys": [], "series": 2, "from": r - 0.4, "to": r + 0.4, "y": share,
         "text": [f"{share:.1%} of tokens end after recursion {r}"]}
        for r, share in enumerate(shares, 1)
    ]  # fmt: skip
    panel = {"title": "Share of tokens by last recursion", "items": items}
    return {
        "x": {
            "label": "Recursion",
            "ticks": _ticks(len(shares)),
            "range": [0.4, len(shares) + 0.6],
        },
        "y": {"label": "Share of tokens", "form": "percent", "zero": True},
        "views": [{"name": "", "panels": [panel], "legend": [], "other": []}],
    }


def _by_depth(losses: list[float]) -> dict[str, Any]:
    line = {
        "kind": "line",
        "keys": [],
        "series": 2,
        "points": [[r, v] for r, v in enumerate(losses, 1)],
    }
    marks = [
        {"kind": "mark", "keys": [], "series": 2, "shape": "circle", "x": r, "y": value,
         "text": [f"at most {r} recursions: loss {value:.4f}"]}
        for r, value in enumerate(losses, 1)
    ]  # fmt: skip
    panel = {"title": "Loss by the depth allowed", "items": [line, *marks]}
    return {
        "x": {"label": "Most recursions a token may take", "ticks": _ticks(len(losses)),
              "range": [0.6, len(losses) + 0.4]},
        "y": {"label": "Causal loss (nats per token)", "form": "fixed"},
        "views": [{"name": "", "panels": [panel], "legend": [], "other": []}],
    }  # fmt: skip


def _histograms(content: dict[str, Any]) -> dict[str, Any]:
    edges = [float(edge) for edge in content["edges"]]
    legend = [
        {"key": "selected", "label": "selected", "series": 2, "shape": "square"},
        {"key": "unselected", "label": "not selected", "series": SERIES_UNSELECTED,
         "shape": "square"},
    ]  # fmt: skip
    panels = []
    for r, pair in enumerate(zip(content["selected"], content["unselected"], strict=True), 1):
        total = max(1, sum(map(sum, pair)))
        items = []
        for entry, counts in zip(legend, pair, strict=True):
            for left, right, number in zip(edges[:-1], edges[1:], counts, strict=True):
                if number:
                    at = {"from": left, "to": right, "y": number / total}
                    what = f"{entry['label']}, score {left:.3g} to {right:.3g}"
                    style = {"keys": [entry["key"]], "series": entry["series"]}
                    items.append(
                        {"kind": "bar", **style, **at, "text": [what, f"{number:,} tokens"]}
                    )
        panels.append({"title": f"Recursion {r}", "items": items})
    return {
        "x": {"label": "Router score", "form": "fixed", "range": [edges[0], edges[-1]]},
        "y": {"label": "Share of tokens", "form": "percent", "zero": True},
        "views": [{"name": "", "panels": panels, "legend": legend, "other": []}],
    }
