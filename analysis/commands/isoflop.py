"""`python -m analysis isoflop POINTS`: approach 2, with figures and a page."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands import options
from analysis.commands.talk import one_sentence, print_json

if TYPE_CHECKING:
    from analysis.isoflop import IsoflopResult
    from analysis.points import PointSet

EPILOG = """
[bold]Examples[/bold]

The study that was just trained, with figures and a page in studies/first/analysis:
[cyan]python -m analysis isoflop studies/first[/cyan]

Every finished run of the store, as JSON for a script, with no files written:
[cyan]python -m analysis isoflop runs --json[/cyan]

Points from elsewhere, a CSV with the columns params, tokens, loss, budget:
[cyan]python -m analysis isoflop points.csv --out porian --no-reference[/cyan]

Exit codes: 0 fitted (warnings included), 2 the points or an option cannot be used.
"""

AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON only; write files only if --out is given.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where figures and index.html go. Default: <study folder>/analysis for a study, "
        "otherwise ./analysis_out.",
        show_default=False,
    ),
]
Reference = Annotated[
    bool, typer.Option(help="Show the paper's Table 9 below, drawn and fitted the same way.")
]
Window = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="K",
        help="Fit each parabola to the lowest size and the K nearest on either side. Default: 3 "
        "where a budget has more than 7 sizes, otherwise all.",
        show_default=False,
    ),
]


@options.flat
def command(
    chosen: options.Chosen,
    resampling: options.Resampling,
    as_json: AsJson = False,
    out: Out = None,
    reference: Reference = True,
    window: Window = None,
) -> None:
    """Fit isoFLOP curves (approach 2): exponents, figures and a page.

    At each budget a parabola of loss in log params, then N_opt ~ C^a and D_opt ~ C^b through its
    minima. A minimum at the edge of the tested sizes, a parabola that opens downwards and a budget
    with fewer than three sizes are named and left out of the law.
    """
    with one_sentence():
        from analysis import verdict
        from analysis.isoflop import fit_isoflop

        found = chosen.load()
        result = fit_isoflop(
            found.table, window=window, resamples=resampling.bootstrap, seed=resampling.seed
        )
        page = None if as_json and out is None else _write_page(result, found, out, reference)
    if as_json:
        print_json(verdict.as_json(result, found))
    else:
        _print_tables(result, found)
    if page is not None:
        typer.echo(page, err=as_json)


def _print_tables(result: "IsoflopResult", points: "PointSet") -> None:
    from rich.console import Console

    from analysis.terminal import print_result

    print_result(Console(), result, points)


def _write_page(
    result: "IsoflopResult", points: "PointSet", out: Path | None, reference: bool
) -> Path:
    from analysis.index import write_index

    default = points.study_folder / "analysis" if points.study_folder else Path("analysis_out")
    written_by = shlex.join(["python", "-m", "analysis", *sys.argv[1:]])
    return write_index(out or default, result, points, with_reference=reference, command=written_by)
