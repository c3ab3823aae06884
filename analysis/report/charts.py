"""Charts as plain data: panels of lines, marks, bars and intervals that `report.js` draws as SVG.

A mark that stands for a run names its row in the page's `runs`, so that every chart shows the same
words for it; any other mark brings its own lines of text. `keys` are the legend entries that an
item goes with: it is shown while all of them are switched on.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.compare import verdict
from analysis.fits.isoflop import IsoflopResult, ModelFrontier
from analysis.fits.minimum import Minimum
from analysis.formatting import compute, count, listing
from analysis.points.series import USUAL_ORDER, ordered
from analysis.points.table import PointSet, curve_of
from analysis.report.fits import Exponent

# Light and dark variants of each series; at least 3 to 1 against the page (tests compute it).
SERIES = (
    ("#0067a3", "#4aa8e0"),
    ("#b84e00", "#f08a4b"),
    ("#007a58", "#2fbf93"),
    ("#a8487f", "#e08fbd"),
    ("#7a5538", "#c79a76"),
    ("#5e4fa2", "#a79be0"),
    ("#8a6d00", "#d9b62f"),
    ("#5c6670", "#a3adb8"),
)
SHAPES = ("circle", "square", "triangle", "diamond", "cross")
SAMPLES = 40
MARKS = 2000  # runs that a chart shows: more take a phone seconds to draw
Chart = dict[str, Any]


def model_entries(models: Sequence[str]) -> list[dict[str, Any]]:
    """Legend entries of the models, in their usual order; a known one always has its own colour."""
    others = [name for name in ordered(models) if name not in USUAL_ORDER]
    spare = len(SERIES) - len(USUAL_ORDER)
    number = {name: i for i, name in enumerate(USUAL_ORDER)}
    number |= {name: len(USUAL_ORDER) + i % spare for i, name in enumerate(others)}
    return [
        {
            "key": f"model {name}",
            "label": name,
            "series": number[name],
            "shape": SHAPES[number[name] % len(SHAPES)],
        }
        for name in ordered(models)
    ]


def isoflop(result: IsoflopResult, points: PointSet, base: int) -> Chart:
    """Loss against size: a panel for each budget (who wins there) or for each model.

    `base` is the number in the page's runs of the first row of `points`.
    """
    models = model_entries(list(result.models))
    budgets: list[dict[str, Any]] = [
        {
            "key": f"budget {value:g}",
            "label": compute(value),
            "series": i % 8,
            "shape": SHAPES[i % 5],
        }
        for i, value in enumerate(sorted(points.table["budget"].unique()))
    ]
    items = _isoflop_items(result, points, base)
    views = []
    arrangements: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = [
        ("a panel for each budget", budgets, models),
        ("a panel for each model", models, budgets),
    ]
    for name, panels, colours in arrangements:
        styles = {entry["key"]: entry for entry in colours}
        drawn = []
        for panel in panels:
            inside = [
                {**item, **_style(styles, item["keys"])}
                for item in items
                if panel["key"] in item["keys"]
            ]
            suffix = " FLOPs" if panel["key"].startswith("budget") else ""
            drawn.append({"title": panel["label"] + suffix, "items": inside})
        views.append({"name": name, "panels": drawn, "legend": colours, "other": panels})
    return {
        "x": {"label": verdict.params_label(points), "log": True, "form": "count"},
        "y": {"label": verdict.loss_label(points), "form": "fixed"},
        "share_y": False,
        "views": views,
    }


def _style(styles: dict[str, dict[str, Any]], keys: list[str]) -> dict[str, Any]:
    entry = next(styles[key] for key in keys if key in styles)
    return {"series": entry["series"], "shape": entry["shape"]}


def _isoflop_items(result: IsoflopResult, points: PointSet, base: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for name, frontier in result.models.items():
        for minimum in frontier.minima:
            keys = [f"model {name}", f"budget {minimum.budget:g}"]
            if minimum.parabola is not None:
                items.append({"kind": "line", "keys": keys, "points": _curve(minimum)})
            items.append({"kind": "star", "keys": keys, **_minimum(name, minimum)})
    rows = zip(
        curve_of(points.table),
        *(points.table[c] for c in ("budget", "params", "loss")),
        shown(points),
        strict=True,
    )
    for row, (model, budget, params, loss, show) in enumerate(rows):
        if not show:
            continue
        keys = [f"model {model}", f"budget {budget:g}"]
        items.append({"kind": "mark", "keys": keys, "x": params, "y": loss, "run": base + row})
    return items


def shown(points: PointSet) -> list[bool]:
    """Which runs have a mark: all, or as many of each curve, budget and size as MARKS allows, and
    one at least."""
    table = points.table
    if len(table) <= MARKS:
        return [True] * len(table)
    again = table.groupby([curve_of(table), table["budget"], table["params"]]).cumcount()
    most = max((n for n in range(1, MARKS) if (again < n).sum() <= MARKS), default=1)
    return (again < most).tolist()


def _curve(minimum: Minimum) -> list[list[float]]:
    assert minimum.parabola is not None
    low, high = minimum.parabola.log_params[[0, -1]]
    sizes = np.exp(np.linspace(low, high, SAMPLES))
    losses = minimum.parabola.loss_at(sizes)
    return [[short(x), short(y)] for x, y in zip(sizes, losses, strict=True)]


def short(value: float) -> float:
    """Six digits: what a page needs of a number."""
    return float(f"{value:.6g}")


def _minimum(model: str, minimum: Minimum) -> dict[str, Any]:
    at = f"{model} at {compute(minimum.budget)} FLOPs"
    if minimum.params is None or minimum.loss is None or minimum.tokens is None:
        return {
            "x": minimum.lowest_params,
            "y": minimum.lowest_loss,
            "hollow": True,
            "text": [f"{at}: no minimum ({minimum.status})", minimum.reason],
        }
    where = f"{count(minimum.params)} parameters, {count(minimum.tokens)} tokens"
    text = [f"{at}: enclosed minimum", f"loss {minimum.loss:.4f} at {where}"]
    if minimum.uncorrected is not None:
        own = minimum.uncorrected
        text.append(f"the parabola's own: loss {own.loss:.4f} at {count(own.params)} parameters")
    return {
        "x": short(minimum.params),
        "y": short(minimum.loss),
        "hollow": False,
        "text": text,
    }


def frontier(result: IsoflopResult, points: PointSet) -> list[Chart]:
    """Best loss and best size against compute, a series for each model."""
    models = model_entries(list(result.models))
    loss: list[dict[str, Any]] = []
    size: list[dict[str, Any]] = []
    for entry in models:
        style = {"keys": [entry["key"]], "series": entry["series"], "shape": entry["shape"]}
        found = result.models[entry["label"]]
        stars = [{"kind": "mark", **_minimum(found.model, m)} for m in found.minima]
        for star, minimum in zip(stars, found.minima, strict=True):
            loss.append({**star, **style, "x": minimum.budget})
            size.append({**star, **style, "x": minimum.budget, "y": star["x"]})
        loss.append(
            {
                "kind": "line",
                **style,
                "points": [[p["x"], p["y"]] for p in loss if p.get("keys") == style["keys"]],
            }
        )
        size += _law_line(found, style)
    x = {"label": verdict.budget_label(points), "log": True, "form": "compute"}
    legend = {"legend": models, "other": []}
    return [
        {
            "x": x,
            "y": {"label": verdict.loss_label(points), "form": "fixed"},
            "views": [{"name": "", "panels": [{"title": "Best loss", "items": loss}], **legend}],
        },
        {
            "x": x,
            "y": {"label": verdict.params_label(points), "log": True, "form": "count"},
            "views": [{"name": "", "panels": [{"title": "Best size", "items": size}], **legend}],
        },
    ]


def _law_line(found: ModelFrontier, style: dict[str, Any]) -> list[dict[str, Any]]:
    law = found.params_law
    if law.exponent is None or law.coefficient is None:
        return []
    ends = [found.interior[0].budget, found.interior[-1].budget]
    values = [[c, short(law.coefficient * c**law.exponent)] for c in ends]
    return [{"kind": "line", **style, "points": values, "dash": True}]


def exponents(found: Sequence[Exponent]) -> Chart:
    """The exponent a of each model by each approach, with its interval."""
    models = model_entries(list(dict.fromkeys(e.model for e in found)))
    rank = {entry["label"]: i for i, entry in enumerate(models)}
    items: list[dict[str, Any]] = []
    for e in found:
        if e.a is None:
            continue
        entry = models[rank[e.model]]
        row = e.approach + 0.16 * (rank[e.model] - (len(models) - 1) / 2)
        style = {"keys": [entry["key"]], "series": entry["series"], "shape": entry["shape"]}
        told = "no interval"
        if e.a_interval:
            low, high = e.a_interval
            told = f"95 % interval {low:.3f} to {high:.3f}"
            items.append({"kind": "span", **style, "y": row, "from": low, "to": high})
        text = [f"{e.model}, {e.name}", f"a = {e.a:.3f}, {told}"]
        items.append({"kind": "mark", **style, "x": e.a, "y": row, "text": text})
    empty = {} if items else {"empty": _no_exponent(found)}
    labels = [{"at": n, "text": f"Approach {n}"} for n in (1, 2, 3)]
    panel = {"title": "Exponent a of N_opt ~ C^a", "items": items, "short": True}
    return {
        # A hopeless interval must not flatten all others: it runs off the panel instead.
        "x": {"label": "a, with its 95 % interval", "form": "fixed", "clip": [-0.5, 1.5]},
        "y": {"label": "", "ticks": labels, "range": [0.5, 3.5], "down": True},
        "views": [{"name": "", "panels": [panel], "legend": models, "other": []}],
        **empty,
    }


def _no_exponent(found: Sequence[Exponent]) -> str:
    reasons = dict.fromkeys(e.reason.rstrip(".") for e in found if e.approach == 2)
    return (
        "There is nothing to draw: no approach gives a model an exponent "
        f"({listing(reasons, 2)}); the table has the reason of each."
    )
