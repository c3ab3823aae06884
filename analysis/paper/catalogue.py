"""What the paper shows, one entry a figure or table: what feeds it, and how it is drawn.

An entry draws from the user's runs, from the published numbers, or both. What cannot be drawn says
why, and which command makes the runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from analysis.compare import verdict
from analysis.errors import AnalysisError
from analysis.figures import (
    isoflop_curves,
    kv_depth,
    kv_sharing,
    loss_vs_budget,
    routing,
    sharing,
    style,
    throughput,
    token_depth,
)
from analysis.fits.isoflop import fit_isoflop
from analysis.paper.render import SavedTable, save_table
from analysis.paper.runs import Run, StudyRuns, feeding
from analysis.paper.tables import TABLES, Table
from analysis.points.load import load_points
from analysis.points.table import PointSet
from analysis.reference import PAPER, load_table9

Saved = style.SavedFigure | SavedTable
ROUTED = "python sweep.py study=quick model=mor size=57k budget=6e10"


@dataclass(frozen=True)
class Material:
    """What there is to draw from, and what was asked."""

    points: Path | None
    studies: tuple[StudyRuns, ...]
    use_runs: bool
    use_paper: bool
    folder: Path
    loss: str = "causal"
    params: str = "nonembedding"
    throughput: Path | None = None
    allow_mixed: bool = False
    only_beside: bool = False  # the published numbers beside the user's runs, never alone

    def shows_paper(self, own: bool) -> bool:
        """Whether an entry has the published numbers; `own`: runs of the user's feed it."""
        return self.use_paper and (own or not self.only_beside)

    @cached_property
    def own_points(self) -> tuple[PointSet | None, str]:
        """The points of the user's isoFLOP study, or None and what is missing."""
        if not self.use_runs:
            return None, ""
        if self.points is None:
            return None, "there are no runs"
        if self.points.is_file():
            return load_points(self.points, allow_mixed=self.allow_mixed), ""
        try:
            found = feeding(list(self.studies), "paper", _is_isoflop, _is_isoflop)
            if found is None:
                return None, "no study has three sizes at two budgets"
            return load_points(
                found.path, loss=self.loss, params=self.params, allow_mixed=self.allow_mixed
            ), ""
        except AnalysisError as error:
            return None, f"the points cannot be used ({error})"

    @property
    def loss_label(self) -> str:
        """Axis title of a loss, on two lines for small panels."""
        return verdict.LOSS_LABELS[self.loss].replace(" (", "\n(")


@dataclass(frozen=True)
class Outcome:
    """What was drawn for an entry, from what; and what its runs still lack, with the command that
    makes them."""

    saved: tuple[Saved, ...] = ()
    sources: tuple[str, ...] = ()
    missing: str = ""
    command: str = ""


@dataclass(frozen=True)
class Entry:
    """One figure or table of the paper."""

    name: str
    title: str
    draw: Callable[[Material, str], Outcome]


def _study_command(study: str) -> str:
    return f"python sweep.py -m study={study}"


def _label(study: StudyRuns) -> str:
    return f"study {study.name}" if study.name else f"runs of {study.path}"


# -- figures 3 and 5a: points ------------------------------------------------------------------


def _is_isoflop(runs: tuple[Run, ...]) -> bool:
    budgets, sizes = {run.budget for run in runs}, {run.size for run in runs}
    return len(budgets) > 1 and len(sizes) > 2


def _loss_vs_budget(material: Material, name: str) -> Outcome:
    points, missing = material.own_points
    if points is not None and not loss_vs_budget.can_draw(points):
        points, missing = None, "the points name no sizes, or have one budget"
    paper = load_table9() if material.shows_paper(points is not None) else None
    saved, sources = [], []
    if points is not None and paper is not None and loss_vs_budget.same_sizes(points, paper):
        saved = [loss_vs_budget.draw(points, material.folder, name, paper)]
        sources = [points.source, paper.source]
    else:
        for which, stem in ((points, name), (paper, f"{name}_paper")):
            if which is not None:
                saved.append(loss_vs_budget.draw(which, material.folder, stem))
                sources.append(which.source)
    return Outcome(tuple(saved), tuple(sources), missing, _study_command("paper"))


def _isoflop(material: Material, name: str) -> Outcome:
    points, missing = material.own_points
    paper = load_table9() if material.shows_paper(points is not None) else None
    saved, sources = [], []
    for which, stem in ((points, name), (paper, f"{name}_paper")):
        if which is not None:
            fitted = fit_isoflop(which.table, resamples=0)
            saved.append(isoflop_curves.draw(fitted, which, material.folder, stem))
            sources.append(which.source)
    return Outcome(tuple(saved), tuple(sources), missing, _study_command("paper"))


# -- tables, and the figures that are drawn from their rows --------------------------------------


def _rows_of_runs(
    table: Table, material: Material
) -> tuple[pd.DataFrame | None, StudyRuns | None, str]:
    """Rows from the study that feeds a table, or None and what is missing."""
    if not material.use_runs:
        return None, None, ""
    studies = [study for study in material.studies if study.name]
    found = feeding(studies, table.study, lambda runs: not table.rows(runs).empty, table.is_about)
    if found is None:
        named = any(study.name.startswith(table.study) for study in studies)
        lacks = "has no finished run" if named else "was not run"
        return None, None, f"the study {table.study} {lacks}"
    unfinished = found.n_planned - len(found.runs)
    said = f"{unfinished} of {found.n_planned} runs have no result yet" if unfinished else ""
    return table.rows(found.runs), found, said


def _table(table: Table, material: Material, name: str) -> Outcome:
    rows, study, missing = _rows_of_runs(table, material)
    command = _study_command(table.study)
    published = material.shows_paper(rows is not None)
    if rows is None and not published:
        return Outcome(missing=missing, command=command)
    sources = [*([_label(study)] if study else []), *([PAPER] if published else [])]
    source = "; ".join(sources)
    saved = save_table(table, rows, published, material.folder, source)
    return Outcome((saved,), tuple(sources), missing, command)


def _from_rows(
    table: Table,
    draw: Callable[[pd.DataFrame, Path, str, str], style.SavedFigure],
    material: Material,
    name: str,
) -> Outcome:
    rows, study, missing = _rows_of_runs(table, material)
    parts, sources = [], []
    if rows is not None and study is not None:
        parts.append(rows.assign(source=_label(study)))
        sources.append(_label(study))
    if material.shows_paper(bool(parts)):
        parts.append(table.published_rows().assign(source="paper"))
        sources.append(PAPER)
    command = _study_command(table.study)
    if not parts:
        return Outcome(missing=missing, command=command)
    data = pd.concat(parts, ignore_index=True)
    saved = draw(data, material.folder, name, material.loss_label)
    return Outcome((saved,), tuple(sources), missing, command)


# -- figures of single runs ----------------------------------------------------------------------


def _best_runs(material: Material, has: Callable[[Run], bool]) -> list[Run]:
    """Of each model that has it, the run with the largest budget and then the lowest loss."""
    runs = [run for study in material.studies for run in study.runs if has(run)]
    best: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (-run.budget, run.nll)):
        best.setdefault(run.result.model, run)
    return [best[name] for name in style.ordered(list(best))]


def _of_runs(
    has: Callable[[Run], bool],
    draw: Callable[[list[Run], Path, str], style.SavedFigure],
    most: int,
    lacks: str,
    command: str,
    material: Material,
    name: str,
) -> Outcome:
    if not material.use_runs:
        return Outcome(missing="the paper publishes no numbers behind it", command=command)
    runs = _best_runs(material, has)[:most]
    if not runs:
        return Outcome(missing=lacks, command=command)
    saved = draw(runs, material.folder, name)
    return Outcome((saved,), tuple(run.run_id for run in runs))


def _throughput(material: Material, name: str) -> Outcome:
    if material.throughput is None:
        return Outcome(
            missing="no measured throughput was given and the paper publishes only ratios; "
            "measure it, or give a CSV (model, tokens_per_s, nll, batch)",
            command="python benchmarks/throughput.py --cache toys --json > speed.json && "
            "python -m analysis figures --only figure_4a --throughput speed.json",
        )
    table = throughput.read_throughput(material.throughput)
    saved = throughput.draw(table, material.folder, name)
    return Outcome((saved,), (str(material.throughput),))


BY_NAME = {table.name: table for table in TABLES}
NO_ROUTING = "no routed run has routing figures in its result.json"

ENTRIES = (
    Entry(
        "figure_1",
        "Figure 1, right: depth of each token",
        partial(
            _of_runs,
            token_depth.has_sample,
            lambda runs, folder, stem: token_depth.draw(runs[0], folder, stem),
            1,
            NO_ROUTING,
            ROUTED,
        ),
    ),
    Entry("figure_3", "Figure 3: loss against budget", _loss_vs_budget),
    Entry("figure_4a", "Figure 4a: throughput against log-likelihood", _throughput),
    Entry(
        "figure_4b",
        "Figure 4b: sharing of layers",
        partial(_from_rows, BY_NAME["table_sharing"], sharing.draw),
    ),
    Entry(
        "figure_4c",
        "Figure 4c: sharing of keys and values",
        partial(_from_rows, BY_NAME["table_kv_sharing"], kv_sharing.draw),
    ),
    Entry("figure_5a", "Figure 5a: isoFLOP curves", _isoflop),
    Entry(
        "figure_5b",
        "Figure 5b: router scores",
        partial(
            _of_runs,
            routing.has_scores,
            lambda runs, folder, stem: routing.draw_scores(runs[0], folder, stem),
            1,
            NO_ROUTING,
            ROUTED,
        ),
    ),
    Entry(
        "figure_5c",
        "Figure 5c: log-likelihood by depth",
        partial(_of_runs, routing.has_depths, routing.draw_depths, 6, NO_ROUTING, ROUTED),
    ),
    Entry(
        "appendix_kv",
        "Appendix: keys and values across depths",
        partial(
            _of_runs,
            kv_depth.has_statistics,
            lambda runs, folder, stem: kv_depth.draw(runs[0], folder, stem),
            1,
            "no recursive run has kv_statistics in its result.json",
            ROUTED.replace("model=mor", "model=recursive"),
        ),
    ),
    *(Entry(table.name, f"Table: {table.title}", partial(_table, table)) for table in TABLES),
)


def chosen(names: list[str]) -> list[Entry]:
    """The entries by name, all for none. Raises AnalysisError for a name that is none of them."""
    known = {entry.name: entry for entry in ENTRIES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise AnalysisError(
            f"--only {unknown[0]} is not a figure or table: choose among {', '.join(known)}."
        )
    return [entry for entry in ENTRIES if entry.name in names or not names]
