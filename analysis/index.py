"""The page of a fit: figures, minima, exponents, points and where everything is from."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
import pandas as pd

from analysis import verdict
from analysis.figures import isoflop_curves, loss_vs_budget, style
from analysis.files import make_folder, write_whole
from analysis.formatting import compute, count
from analysis.isoflop import IsoflopResult, fit_isoflop
from analysis.points import PointSet
from analysis.reference import TABLE9_SOURCE, load_table9

TABLE9_READING = (
    "At 2e18 and 5e18 FLOPs the lowest loss of vanilla and of recursive lies at the smallest size "
    "that was tested: an edge, not a minimum, so neither has an exponent on this grid. At 1.65e19, "
    "vanilla is ahead at 135M, 360M and 730M; MoR is ahead only at 1.7B. MoR's own exponents rest "
    "on four sizes a budget, fitted by a wide parabola. The three budgets of a model share one "
    "training trunk, so they are not independent, and an interval that treats them as such is too "
    "narrow."
)


@dataclass(frozen=True)
class Section:
    """One set of points as the page shows it."""

    points: PointSet
    result: IsoflopResult
    figures: list[style.SavedFigure]
    notes: list[str]
    labels: dict[str, str]


def write_index(
    folder: Path,
    result: IsoflopResult,
    points: PointSet,
    *,
    with_reference: bool = True,
    command: str = "",
) -> Path:
    """Draw the figures into `folder`, then write `index.html` over them; returns its path."""
    make_folder(folder)
    own = _section(result, points, folder, "")
    reference = _reference_section(folder, result) if with_reference else None
    html = (
        _environment()
        .get_template("index.html.j2")
        .render(
            own=own,
            reference=reference,
            reading=TABLE9_READING,
            reference_source=TABLE9_SOURCE,
            rows=_point_rows(points, folder),
            provenance=_provenance(result, points, command),
        )
    )
    # Last, so that a page never links to a figure that is not there yet.
    page = folder / "index.html"
    write_whole(page, html)
    return page


def _section(result: IsoflopResult, points: PointSet, folder: Path, prefix: str) -> Section:
    figures = [isoflop_curves.draw(result, points, folder, f"{prefix}isoflop_curves")]
    notes = []
    if loss_vs_budget.can_draw(points):
        figures.append(loss_vs_budget.draw(points, folder, f"{prefix}loss_vs_budget"))
    else:
        notes.append(
            "Loss against budget is not drawn: it takes a base size for every point (column "
            "`size`) and two budgets."
        )
    labels = {
        "budget": verdict.budget_label(points),
        "params": verdict.params_label(points),
        "loss": verdict.loss_label(points),
    }
    return Section(points, result, figures, notes, labels)


def _reference_section(folder: Path, own: IsoflopResult) -> Section:
    table9 = load_table9()
    result = fit_isoflop(table9.table, window=own.window, resamples=own.resamples, seed=own.seed)
    return _section(result, table9, folder, "reference_")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(
        law_text=verdict.law_text, verdict=verdict.verdict, minimum_cells=verdict.minimum_cells
    )
    return environment


def _point_rows(points: PointSet, folder: Path) -> list[dict[str, str | None]]:
    """The table of points, each with its run and a link to the run's folder where there is one."""
    table = points.table.sort_values(["model", "budget", "params", "seed"], kind="stable")
    return [
        {
            "model": row["model"],
            "size": _text(row["size"]),
            "budget": compute(row["budget"]),
            "params": count(row["params"]),
            "tokens": count(row["tokens"]),
            "loss": f"{row['loss']:.4f}",
            "seed": "" if pd.isna(row["seed"]) else f"{row['seed']:g}",
            "run": _text(row["run_id"]) or _text(row["source"]),
            "link": _link(Path(row["source"]), folder),
        }
        for row in table.to_dict("records")
    ]


def _text(value: object) -> str:
    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]


def _link(source: Path, folder: Path) -> str | None:
    if not source.is_dir():
        return None
    return quote(os.path.relpath(source.resolve(), folder.resolve())) + "/"


def _provenance(result: IsoflopResult, points: PointSet, command: str) -> dict[str, str]:
    unknown = "not given by the source"
    window = "3 where a budget has more than 7 sizes, otherwise all points"
    return {
        "Source": points.source,
        "Points": str(result.n_points),
        "FLOP convention": points.convention or unknown,
        "Loss": f"{verdict.loss_label(points)}, {points.loss}",
        "Parameters": f"{verdict.params_label(points)}, {points.params}",
        "Data fingerprint": ", ".join(points.distinct("data_fingerprint")) or unknown,
        "Git commits": ", ".join(points.distinct("git_commit")) or unknown,
        "Fit": "approach 2 (Hoffmann et al. 2022, section 3.2): a least-squares parabola of loss "
        "in log(params) at each budget, ordinary least squares in log-log through the minima",
        "Sizes on either side of the lowest": window
        if result.window is None
        else str(result.window),
        "Intervals": f"95 %, {result.resamples} resamples of the residuals within each budget, "
        f"seed {result.seed}"
        if result.resamples
        else "not asked for",
        "Command": command or "called from Python",
    }
