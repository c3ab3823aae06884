"""The report as one file: everything gathered, then a template with its CSS, JS and data inline."""

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis.compare import verdict
from analysis.errors import AnalysisError
from analysis.files import make_folder, write_whole
from analysis.fits.isoflop import IsoflopResult, fit_isoflop
from analysis.fits.minimum import DEFAULT_WINDOW
from analysis.formatting import compute, count, plural
from analysis.points.table import PointSet, curve_of
from analysis.reference import TABLE9_SOURCE, load_table9
from analysis.report import charts, curves, fits, records, routing, words
from analysis.report.evaluations import evaluations
from analysis.report.forecasts import forecasts
from analysis.report.pages import environment
from analysis.report.study import study_facts
from ledger.autopilot import rounds
from ledger.folder import RunFolder
from ledger.plan_file import StudyFolder
from ledger.result import BYTE_KEYS

TABLE9_READING = (
    "At 2e18 and 5e18 FLOPs the lowest loss of vanilla and of recursive lies at the smallest size "
    "that was tested: an edge, not a minimum, so neither has an exponent on this grid. At 1.65e19, "
    "vanilla is ahead at 135M, 360M and 730M; MoR is ahead only at 1.7B. MoR's own exponents rest "
    "on four sizes a budget, fitted by a wide parabola. The three budgets of a model share one "
    "training trunk, so they are not independent, and an interval that treats them as such is too "
    "narrow."
)
UNKNOWN = "not given by the source"
ROWS = 200  # of the table of runs on one of its pages


def write_report(
    file: Path,
    result: IsoflopResult,
    points: PointSet,
    *,
    reference: bool = True,
    command: str = "",
    recipe: Path | None = None,
) -> Path:
    """Write the page to `file`, whole or not at all; returns its path.

    `points` were fitted by `result` and need the column trunk (see `analysis.points.Wanted`), and
    those of `analysis.compare.mistuning` for their recipes to be judged, by `recipe` if given.
    Raises AnalysisError where the file cannot be written or `recipe` is none.
    """
    if file.is_dir():
        raise AnalysisError(
            f"--out {file} is a folder: name a file, as in --out {file}/report.html."
        )
    content = gather(file.absolute().parent, result, points, reference, command, recipe)
    make_folder(file.absolute().parent)
    html = _templates().get_template("report.html.j2").render(content)
    write_whole(file, html)
    return file


def gather(
    folder: Path,
    result: IsoflopResult,
    points: PointSet,
    reference: bool,
    command: str,
    recipe: Path | None = None,
) -> dict[str, Any]:
    """Everything the page shows; links are relative to `folder`, where the page will stand."""
    found = records.of_points(points.table)
    runs = _runs(points, found, folder)
    in_bytes = points.loss in BYTE_KEYS
    on_the_way = None if in_bytes else points.loss  # kept in nats
    exponents = fits.exponents(points.table, result, on_the_way)
    routed = {name: r.routing for name, r in found.items() if r.routing}
    routing_found = routing.routing(points.table, routed) if routed else None
    drawn: dict[str, Any] = {"isoflop": charts.isoflop(result, points, 0)}
    drawn["loss_frontier"], drawn["size_frontier"] = charts.frontier(result, points)
    drawn["exponents"] = charts.exponents(exponents)
    learning = curves.learning(points, records.bits_a_nat(found.values()))
    if learning:
        drawn["learning"] = learning.chart
    for number, run in enumerate(routing_found.runs if routing_found else []):
        drawn |= {f"routing_{number}_{i}": chart for i, chart in enumerate(run.charts)}
    paper = None
    if reference:
        table9 = load_table9()
        fit = fit_isoflop(table9.table, resamples=result.resamples, seed=result.seed)
        drawn["reference"] = charts.isoflop(fit, table9, len(runs))
        paper = {
            "source": TABLE9_SOURCE,
            "reading": TABLE9_READING,
            "verdicts": [(name, verdict.verdict(f)) for name, f in _ordered(fit)],
        }
        runs = [*runs, *_runs(table9, {}, folder)]
    study = study_facts(points.study_folder, found) if points.study_folder else None
    own = runs[: len(points.table)]
    marked = charts.shown(points)
    in_bits = any(run["bits"] for run in own)
    listed = sorted(own, key=lambda run: (run["model"], run["budget_value"], run["n"]))
    more = [_cells(run, in_bits) for run in listed[ROWS:]]
    tips = [run["tip"] for run in runs]
    tips[: len(own)] = [tip if mark else None for tip, mark in zip(tips, marked, strict=False)]
    return {
        "title": study.name if study else points.source,
        "study": study,
        "points": points,
        "summary": _summary(points),
        "said": words.say(result, points, found, recipe),
        "frontiers": _ordered(result),
        "variants": _variants(result, points, command),
        "exponents": exponents,
        "forecasts": forecasts(points, result),
        "pilot": rounds(StudyFolder(points.study_folder)) if points.study_folder else [],
        "routing": routing_found,
        "inspections": _inspections(points, folder),
        "learning": learning,
        "in_bits": in_bits,
        "evaluations": evaluations(points.table),
        "runs": listed[:ROWS],
        "marked": (sum(marked), len(marked)),
        "more": len(more),
        "reference": paper,
        "left_out": _left_out(result, points, exponents),
        "provenance": _provenance(result, points, found, command),
        "labels": {
            "budget": verdict.budget_label(points),
            "params": verdict.params_label(points),
            "loss": verdict.loss_label(points),
        },
        "data": {"runs": tips, "charts": drawn, "more": {"table-of-runs": more}},
        "series": charts.SERIES,
    }


def _ordered(result: IsoflopResult) -> list[tuple[str, Any]]:
    return [
        (e["label"], result.models[e["label"]]) for e in charts.model_entries(list(result.models))
    ]


def _variants(result: IsoflopResult, points: PointSet, written_by: str) -> str:
    """What to say in place of a line for each of many curves that have one size at each budget."""
    sizes = points.table.groupby([curve_of(points.table), "budget"])["params"].nunique()
    if len(result.models) <= 3 or sizes.max() > 1:
        return ""
    named = ", with this page's --columns," if "--columns" in written_by else ""
    command = f"python -m analysis figures {points.source}{named}"
    return (
        f"{len(result.models)} variants, each of one size at a budget: there are no isoFLOP curves "
        f"to fit. Their losses are in the table of runs; {command} sets them beside the paper's."
    )


def _summary(points: PointSet) -> str:
    table = points.table
    models, budgets = curve_of(table).nunique(), table["budget"].nunique()
    return (
        f"{plural(len(table), 'finished run')} of {plural(models, 'model')} at "
        f"{plural(budgets, 'budget')} from {compute(table['budget'].min())} to "
        f"{compute(table['budget'].max())} FLOPs, {count(table['params'].min())} to "
        f"{count(table['params'].max())} parameters."
    )


def _runs(
    points: PointSet, found: Mapping[str, records.Record], folder: Path
) -> list[dict[str, Any]]:
    """The points in order, as rows of the table and as the words of a hover."""
    rows, convention = [], points.convention or ""
    for row in points.table.assign(curve=curve_of(points.table)).to_dict("records"):
        run_id = _text(row["run_id"]) or _text(row["source"])
        record = found.get(run_id)
        spent = ", ".join(f"{compute(v)} {k}" for k, v in record.flops.items()) if record else ""
        link = _link(Path(str(row["source"])), folder)
        seed = "" if pd.isna(row["seed"]) else f"{row['seed']:g}"
        budget = f"{compute(row['budget'])} {convention}".strip()
        told = record is not None and points.loss not in BYTE_KEYS
        bits = record.bits_per_byte(points.loss) if record and told else None
        tip = [
            run_id,
            f"loss {row['loss']:.4f}" + (f", {bits:.4f} bits per byte" if bits else ""),
            f"{count(row['params'])} parameters, {count(row['tokens'])} tokens",
            f"FLOPs: budget {budget}" + (f"; spent {spent}" if spent else ""),
        ]
        rows.append(
            {
                "run": run_id,
                "link": link,
                "model": str(row["curve"]),
                "size": _text(row["size"]),
                "budget": compute(row["budget"]),
                "budget_value": row["budget"],
                "params": count(row["params"]),
                "n": row["params"],
                "tokens": count(row["tokens"]),
                "d": row["tokens"],
                "loss": f"{row['loss']:.4f}",
                "loss_value": row["loss"],
                "bits": f"{bits:.4f}" if bits else "",
                "exact": compute(record.flops["exact"])
                if record and "exact" in record.flops
                else "",
                "exact_value": record.flops.get("exact", 0) if record else 0,
                "seed": seed,
                "tip": {"text": tip, "href": link},
            }
        )
    return rows


def _cells(run: dict[str, Any], in_bits: bool) -> dict[str, Any]:
    """A row of the table as `report.js` makes it: texts, or text and the number that sorts."""
    return {
        "href": run["link"],
        "cells": [
            run["run"],
            [run["loss"], charts.short(run["loss_value"])],
            [run["budget"], charts.short(run["budget_value"])],
            [run["params"], charts.short(run["n"])],
            [run["tokens"], charts.short(run["d"])],
            [run["exact"], charts.short(run["exact_value"])],
            *([run["bits"]] if in_bits else []),
            run["seed"],
            [run["size"], charts.short(run["n"])],
            run["model"],
        ],
    }


def _text(value: object) -> str:
    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]


def _link(source: Path, folder: Path) -> str | None:
    if not source.is_dir():
        return None
    return _to(source, folder) + "/"


def _inspections(points: PointSet, folder: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """The pages of depths that stand with the runs: run id, and the name and link of each."""
    found = []
    for row in points.table.sort_values("run_id").to_dict("records"):
        pages = sorted(RunFolder(Path(str(row["source"]))).inspections.glob("[!.]*.html"))
        if pages:
            found.append((str(row["run_id"]), [(page.stem, _to(page, folder)) for page in pages]))
    return found


def _to(path: Path, folder: Path) -> str:
    return quote(os.path.relpath(path.resolve(), folder.resolve()))


def _left_out(
    result: IsoflopResult, points: PointSet, exponents: list[fits.Exponent]
) -> list[tuple[str, list[str]]]:
    """What is not in the numbers above, and why: points, minima, exponents."""
    minima = [
        f"{name} at {compute(m.budget)}: {m.status}, {m.reason}."
        for name, frontier in _ordered(result)
        for m in frontier.minima
        if m.params is None
    ]
    refused = [f"{e.model}, {e.name}: {e.reason}" for e in exponents if e.a is None]
    groups = [
        ("Points", list(map(str, points.warnings))),
        ("Minima", minima),
        ("Exponents", refused),
    ]
    return [(name, reasons) for name, reasons in groups if reasons]


def _provenance(
    result: IsoflopResult, points: PointSet, found: Mapping[str, records.Record], command: str
) -> dict[str, str]:
    versions = sorted({f"{k} {v}" for r in found.values() for k, v in r.versions.items()})
    seeds = points.distinct("seed")
    window = DEFAULT_WINDOW
    if result.window is not None:
        window = f"the {result.window} on either side of the lowest"
    here = [f"{name} {metadata.version(name)}" for name in ("numpy", "pandas", "scipy")]
    return {
        "Source": points.source,
        "Points": str(result.n_points),
        "FLOP convention": points.convention or UNKNOWN,
        "Loss": f"{verdict.loss_label(points)}, {points.loss}",
        "Parameters": f"{verdict.params_label(points)}, {points.params}",
        "Seeds of the runs": ", ".join(s.removesuffix(".0") for s in seeds) or UNKNOWN,
        "Data fingerprint": ", ".join(points.distinct("data_fingerprint")) or UNKNOWN,
        "Git commit of the runs": ", ".join(points.distinct("git_commit")) or UNKNOWN,
        "Versions of the runs": ", ".join(versions) or UNKNOWN,
        "Versions of this fit": ", ".join([f"python {platform.python_version()}", *here]),
        "Approach 1": "lower envelope of the finished runs' curves (Hoffmann et al. 2022, 3.1)",
        "Approach 2": "a least-squares parabola of loss in log(params) at each budget, then "
        "ordinary least squares in log-log through the enclosed minima (Hoffmann et al. 2022, "
        f"3.2); sizes: {window}",
        "Approach 3": "Huber loss of log residuals, 4,500 starts (Hoffmann et al. 2022, 3.3)",
        "Intervals": f"95 %, {result.resamples} resamples, seed {result.seed}"
        if result.resamples
        else "not asked for",
        "Command": command or "called from Python",
    }


def _templates() -> jinja2.Environment:
    found = environment()
    found.globals.update(
        law_text=verdict.law_text,
        verdict=verdict.verdict,
        minimum_cells=verdict.minimum_cells,
        compute=compute,
        static=_static,
    )
    found.filters["script_data"] = _script_data
    return found


def _static(name: str) -> Markup:
    """A style sheet or a script of ours, as it stands."""
    return Markup((Path(__file__).parent / "templates" / name).read_text())


def _script_data(value: Any) -> Markup:
    """JSON that no text inside can end the script element of."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))
