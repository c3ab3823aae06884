"""Plain words and plain JSON for a fit: the terminal, the page and `--json` say the same."""

from typing import Any

import numpy as np

from analysis.cautions import Code
from analysis.fits.isoflop import IsoflopResult, ModelFrontier, PowerLaw
from analysis.fits.minimum import WIDER, Minimum, Status
from analysis.formatting import compute, count, listing, plural
from analysis.points.table import PointSet
from ledger.result import BYTE_KEYS

PARAMS_LABELS = {
    "nonembedding": "Parameters, non-embedding",
    "total": "Parameters, total",
    "as given": "Parameters",
}
LOSS_LABELS = {
    "causal": "Validation loss (nats per token)",
    "topk": "Validation loss, top-k routing (nats per token)",
    "as given": "Validation loss (nats per token)",
    "bpb": "Validation loss (bits per byte)",
    "bpb_topk": "Validation loss, top-k routing (bits per byte)",
}


def params_label(points: PointSet) -> str:
    """Axis and column title of the sizes."""
    return PARAMS_LABELS[points.params]


def loss_label(points: PointSet) -> str:
    """Axis and column title of the losses, with the unit."""
    return LOSS_LABELS[points.loss]


def unit(points: PointSet) -> str:
    """Of the losses."""
    return "bits per byte" if points.loss in BYTE_KEYS else "nats per token"


def budget_label(points: PointSet) -> str:
    """Axis and column title of the budgets, with unit and convention where it is known."""
    if points.convention is None:
        return "Budget (FLOPs)"
    return f"Budget (FLOPs, {points.convention} convention)"


def law_text(symbol: str, law: PowerLaw) -> str:
    """`N_opt ~ C^0.497 (95 % interval 0.491 to 0.504)`."""
    if law.exponent is None:
        return f"{symbol}: no exponent"
    if law.interval is None:
        return f"{symbol} ~ C^{law.exponent:.3f} (no interval)"
    low, high = law.interval
    return f"{symbol} ~ C^{law.exponent:.3f} (95 % interval {low:.3f} to {high:.3f})"


def correction_text(frontier: ModelFrontier) -> str:
    """Whether the parabolas' bias is taken off, and the exponent with and without."""
    before, after = frontier.uncorrected_params_law.exponent, frontier.params_law.exponent
    if frontier.note.code is Code.NOT_CORRECTED or before is None or after is None:
        return frontier.note.text
    return f"{frontier.note.text} Uncorrected: N_opt ~ C^{before:.3f}."


def verdict(frontier: ModelFrontier) -> str:
    """One or two sentences on what the points of a model say, and what would make them say more."""
    used, total = len(frontier.interior), len(frontier.minima)
    a, b = frontier.params_law.exponent, frontier.tokens_law.exponent
    if a is None or b is None:
        found = f"{used or 'none'} of {plural(total, 'budget')}"
        return f"No exponent: {found} has an interior minimum. {_advice(frontier)}".strip()
    said = (
        f"With 10 times the compute, the best model has {10**a:.2g} times the parameters and sees "
        f"{10**b:.2g} times the tokens ({used} of {plural(total, 'budget')} with an interior "
        "minimum)."
    )
    return f"{said} {_advice(frontier)}".strip()


def _advice(frontier: ModelFrontier) -> str:
    """Where the next runs should stand."""
    parts = []
    refused = [m for m in frontier.minima if m.status is not Status.INTERIOR]
    for need, minima in (
        ("smaller sizes", [m for m in refused if _falls_towards(m) == "smaller"]),
        ("larger sizes", [m for m in refused if _falls_towards(m) == "larger"]),
        (
            "sizes nearer to the minimum",
            [m for m in refused if m.status is Status.MISFIT],
        ),
        ("more sizes", [m for m in refused if m.status is Status.TOO_FEW]),
        (
            "other sizes or a longer training",
            [m for m in refused if m.status is Status.NOT_CONVEX],
        ),
    ):
        if minima:
            parts.append(f"{need} at {listing(compute(m.budget) for m in minima)}")
    said = [f"train {'; '.join(parts)}"] if parts else []
    narrow = [m for m in refused if m.status is Status.NARROW]
    if narrow:
        said.append(f"type --window {WIDER} for {listing(compute(m.budget) for m in narrow)}")
    return f"To have more: {', and '.join(said)}." if said else ""


def _falls_towards(minimum: Minimum) -> str | None:
    if minimum.status is not Status.EDGE or minimum.parabola is None:
        return None
    smallest, largest = minimum.parabola.log_params[[0, -1]]
    lowest = np.log(minimum.lowest_params)
    if lowest in (smallest, largest):
        return "smaller" if lowest == smallest else "larger"
    return "smaller" if minimum.parabola.vertex < minimum.parabola.centre else "larger"


def minimum_cells(minimum: Minimum) -> list[str]:
    """budget, N_opt, D_opt, loss, status, points: as text for a table."""
    if minimum.params is None or minimum.tokens is None or minimum.loss is None:
        numbers = ["-", "-", "-"]
    else:
        numbers = [count(minimum.params), count(minimum.tokens), f"{minimum.loss:.4f}"]
    return [compute(minimum.budget), *numbers, str(minimum.status), str(minimum.n_points)]


def as_json(result: IsoflopResult, points: PointSet) -> dict[str, Any]:
    """What `--json` prints; holds no NaN, null where there is no number."""
    return {
        "models": {name: _frontier_json(frontier) for name, frontier in result.models.items()},
        "n_points": result.n_points,
        "convention": points.convention,
        "loss": points.loss,
        "params": points.params,
        "window": result.window,
        "bootstrap": {"resamples": result.resamples, "seed": result.seed},
        "noise": vars(result.noise),
        "source": points.source,
        "warnings": list(points.warnings),
    }


def _frontier_json(frontier: ModelFrontier) -> dict[str, Any]:
    a, b = frontier.params_law, frontier.tokens_law
    return {
        "a": a.exponent,
        "a_interval": list(a.interval) if a.interval else None,
        "b": b.exponent,
        "b_interval": list(b.interval) if b.interval else None,
        "corrected": frontier.note.code is Code.BIAS_CORRECTED,
        "note": frontier.note,
        "uncorrected": {
            "a": frontier.uncorrected_params_law.exponent,
            "b": frontier.uncorrected_tokens_law.exponent,
        },
        "minima": [
            {
                "budget": m.budget,
                "params": m.params,
                "params_interval": list(m.params_interval) if m.params_interval else None,
                "tokens": m.tokens,
                "loss": m.loss,
                "uncorrected": vars(m.uncorrected) if m.uncorrected else None,
                "status": str(m.status),
                "n_points": m.n_points,
                "reason": m.reason,
                "lowest": {"params": m.lowest_params, "loss": m.lowest_loss},
            }
            for m in frontier.minima
        ],
        "warnings": list(frontier.warnings),
    }
