"""`python -m analysis score STUDY|FORECAST [POINTS]`: forecasts against what was measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.cautions import Caution
from analysis.commands import options
from analysis.commands.talk import one_sentence, parse_columns, print_json, print_warnings
from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.forecast.score import Calibration, Scored

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
        help="A study folder, for all of its forecasts, or one forecast file.",
        show_default=False,
    ),
]
Against = Annotated[
    Path | None,
    typer.Argument(
        metavar="[POINTS]",
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
        total = calibration(rows, scored[-1][1])
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
    typer.echo(_total(total, {level for _, level, _, _ in scored}))
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

    columns = ("what", "model", "budget", "predicted", f"{level:.0%} interval", "measured", "z", "")
    shown = Table(*columns, box=box.SIMPLE_HEAD, title=f"\n{file.name}", title_justify="left")
    for row in rows:
        shown.add_row(*_cells(row))
    console = Console() if Console().is_terminal else Console(width=130)
    console.print(shown, highlight=False, markup=False)


def _cells(row: "Scored") -> list[str]:
    from analysis.formatting import compute, count

    def told(value: float) -> str:
        if row.what == "N_opt":
            return count(value)
        return f"{value:+.4f}" if row.what.startswith("gap") else f"{value:.4f}"

    ends = f"{told(row.interval[0])} to {told(row.interval[1])}" if row.interval else "-"
    measured = "-" if row.measured is None else told(row.measured)
    z = "-" if row.z is None else f"{row.z:+.1f}"
    verdict = row.reason if row.hit is None else "hit" if row.hit else "missed"
    return [row.what, row.model, compute(row.budget), told(row.predicted), ends, measured, z,
            verdict]  # fmt: skip


def _total(found: "Calibration", levels: set[float]) -> str:
    if not found.number:
        return "\nNothing that was forecast has been measured yet."
    said = ", ".join(f"{level:.0%}" for level in sorted(levels))
    z = f", z {found.z_rms:.2f} rms" if found.z_rms is not None else ""
    return f"\n{found.hits} of {found.number} inside their {said} intervals{z}."
