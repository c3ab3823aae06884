"""`python -m analysis isoflop POINTS`: approach 2, with figures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands import options
from analysis.commands.talk import one_sentence, print_json

if TYPE_CHECKING:
    from analysis.fits.isoflop import IsoflopResult
    from analysis.points.table import PointSet

EPILOG = """
[bold]Examples[/bold]

The study that was just trained, with figures in studies/first/analysis:
[cyan]python -m analysis isoflop studies/first[/cyan]

Every finished run of the store, as JSON for a script, with no files written:
[cyan]python -m analysis isoflop runs --json[/cyan]

A CSV with the columns params, tokens, loss, budget (without --out: ./analysis_out):
[cyan]python -m analysis isoflop points.csv --out porian[/cyan]

Exit codes: 0 fitted (warnings included), 2 the points or an option cannot be used.
"""

AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON only; write files only if --out is given.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where the figures go. Default: <study folder>/analysis for a study, "
        "otherwise ./analysis_out.",
        show_default=False,
    ),
]


@options.flat
def command(
    chosen: options.ChosenInAnyUnit,
    resampling: options.Resampling,
    as_json: AsJson = False,
    out: Out = None,
    window: options.Window = None,
) -> None:
    """Fit isoFLOP curves (approach 2): exponents and figures.

    Figures are written to studies/NAME/analysis, or of a CSV, a run store or W&B to ./analysis_out,
    a new folder where you are; --out DIR names another, --json writes none.

    At each budget a parabola of loss in log params, then N_opt ~ C^a and D_opt ~ C^b through its
    minima. A minimum at the edge of the tested sizes, a parabola that opens downwards and a budget
    with fewer than three sizes are named and left out of the law.
    """
    with one_sentence():
        from analysis.compare import verdict
        from analysis.fits.isoflop import fit_isoflop

        found = chosen.load(names=("trunk",))
        result = fit_isoflop(
            found.table, window=window, resamples=resampling.bootstrap, seed=resampling.seed
        )
        folder = None if as_json and out is None else _draw(result, found, out)
    if as_json:
        print_json(verdict.as_json(result, found))
    else:
        _print_tables(result, found)
    if folder is not None:
        typer.echo(f"Figures: {folder}", err=as_json)
        page = f"python -m analysis report {chosen.typed()}"
        typer.echo(f"A page to read and to send: {page}", err=as_json)


def _print_tables(result: "IsoflopResult", points: "PointSet") -> None:
    from rich.console import Console

    from analysis.commands.terminal import print_result

    print_result(Console(), result, points)


def _draw(result: "IsoflopResult", points: "PointSet", out: Path | None) -> Path:
    from analysis.figures import isoflop_curves, loss_vs_budget
    from analysis.files import make_folder
    from analysis.parallel import spread

    default = points.study_folder / "analysis" if points.study_folder else Path("analysis_out")
    folder = out or default
    make_folder(folder)
    figures = [lambda: isoflop_curves.draw(result, points, folder, "isoflop_curves")]
    if loss_vs_budget.can_draw(points):
        figures.append(lambda: loss_vs_budget.draw(points, folder, "loss_vs_budget"))
    spread(lambda draw: draw(), figures, least=2)
    return folder
