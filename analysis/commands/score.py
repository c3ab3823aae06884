"""`python -m analysis score STUDY|FORECAST [POINTS]`: forecasts against what was measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.cautions import Caution
from analysis.commands import options
from analysis.commands.talk import one_sentence, parse_columns, print_json, print_warnings
from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.forecast.score import Scored

EPILOG = """
[bold]Examples[/bold]

Every forecast of a study against its finished runs:
[cyan]python -m analysis score studies/first[/cyan]

One forecast against points from elsewhere:
[cyan]python -m analysis score studies/first/forecasts/20261127-101500-1a2b.json points.csv[/cyan]

Exit codes: 0 told, 2 a forecast was edited, or the points or an option cannot be used.
"""

What = Annotated[
    Path,
    typer.Argument(
        metavar="STUDY|FORECAST",
        callback=options.as_study,
        help="A study, for all of its forecasts, or one forecast file.",
        show_default=False,
    ),
]
Against = Annotated[
    Path | None,
    typer.Argument(
        metavar="[POINTS]",
        callback=options.as_study,
        help="What was measured. Default: the study's runs.",
        show_default=False,
    ),
]


def command(
    what: What,
    points: Against = None,
    columns: options.Columns = None,
    allow_mixed: options.AllowMixed = False,
    as_json: options.AsJson = False,
) -> None:
    """Say which predictions were hit, how far off the others are, and how the bands do so far."""
    with one_sentence():
        from analysis.forecast import record
        from analysis.forecast.score import calibration
        from analysis.report.forecasts import total_of

        if not what.exists():
            raise AnalysisError(f"{what} does not exist: name a study's folder, or a forecast.")
        files = record.files_of(what) if what.is_dir() else [what]
        if not files:
            raise AnalysisError(
                f"{what} has no forecasts: write one with `python -m analysis forecast {what} "
                "--at 'budget=...'` before the runs."
            )
        if points is None and not what.is_dir():
            points = _study_of(what)
        where = points or what
        scored = [_score(file, where, columns, allow_mixed) for file in files]
        rows = [row for _, _, found, _ in scored for row in found]
        total = calibration(rows)
    warnings = [Caution(w.code, f"{file.name}: {w}") for file, _, _, said in scored for w in said]
    if as_json:
        content = {
            "forecasts": [
                {"file": str(file), "level": level, "scores": [vars(row) for row in found]}
                for file, level, found, _ in scored
            ],
            "calibration": vars(total),
        }
        print_json({**content, "warnings": warnings})
        return
    for file, level, found, _ in scored:
        _print(file, level, found)
    levels = ", ".join(f"{level:.0%}" for level in sorted({level for _, level, _, _ in scored}))
    typer.echo(f"\n{total_of(total, levels)}")
    print_warnings(warnings)


def _study_of(file: Path) -> Path:
    """The study whose folder holds a forecast."""
    from analysis.forecast.record import FOLDER
    from ledger.plan_file import StudyFolder

    study = file.resolve().parent.parent
    if file.resolve().parent.name != FOLDER or not StudyFolder(study).plan_file.is_file():
        raise AnalysisError(
            f"{file} is in no study's folder: give the points behind it, as in "
            f"`python -m analysis score {file} points.csv`."
        )
    return study


def _score(
    file: Path, where: Path, columns: str | None, allow_mixed: bool
) -> "tuple[Path, float, list[Scored], list[Caution]]":
    from analysis.fits.isoflop import fit_isoflop
    from analysis.forecast import record
    from analysis.forecast.score import score
    from analysis.points.load import load_points
    from analysis.points.table import NUMBERS, Wanted

    content, done = record.read(file)
    store = {} if content["loss"] == "as given" else {k: content[k] for k in ("loss", "params")}
    if where.is_file():
        store = {}
    found = load_points(
        where,
        allow_mixed=allow_mixed,
        wanted=Wanted(NUMBERS, ("trunk",), parse_columns(columns)),
        **store,
    )
    rows, said = score(content, done, found, fit_isoflop(found.table, resamples=0))
    return file, done.level, rows, said


def _print(file: Path, level: float, rows: "list[Scored]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from analysis.report.forecasts import cells_of

    columns = ("what", "model", "budget", "predicted", f"{level:.0%} interval", "measured", "z", "")
    shown = Table(*columns, box=box.SIMPLE_HEAD, title=f"\n{file.name}", title_justify="left")
    for row in rows:
        shown.add_row(*cells_of(row))
    width = None if Console().is_terminal else 130
    console = Console(width=width, markup=False, emoji=False)
    console.print(shown, highlight=False)
