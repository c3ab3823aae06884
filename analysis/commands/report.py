"""`python -m analysis report POINTS`: one page with everything, to read and to send."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from analysis.commands import options
from analysis.commands.talk import one_sentence

EPILOG = """
[bold]Examples[/bold]

The study that was just trained, as studies/first/report.html:
[cyan]python -m analysis report studies/first[/cyan]

Points from elsewhere, a CSV with the columns params, tokens, loss, budget:
[cyan]python -m analysis report points.csv --out porian.html --no-reference[/cyan]

Exit codes: 0 written, 2 the points or an option cannot be used.
"""

Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The page. Default: <study folder>/report.html for a study, otherwise ./report.html.",
        show_default=False,
    ),
]
Reference = Annotated[
    bool, typer.Option(help="Show the paper's Table 9 below, drawn and fitted the same way.")
]


@options.flat
def command(
    chosen: options.ChosenInAnyUnit,
    resampling: options.Resampling,
    out: Out = None,
    reference: Reference = True,
    window: options.Window = None,
    recipe: options.RecipeFile = None,
) -> None:
    """Write one self-contained HTML page: who wins, charts, fits, routing, runs, provenance.

    It needs no network and no other file: send it, print it, read it on a phone. Charts show a
    run's numbers where a pointer, a finger or the keyboard points at it.
    """
    with one_sentence():
        from analysis.compare.mistuning import COLUMNS
        from analysis.fits.isoflop import fit_isoflop
        from analysis.report.page import write_report

        found = chosen.load(names=("trunk", *COLUMNS))
        result = fit_isoflop(
            found.table, window=window, resamples=resampling.bootstrap, seed=resampling.seed
        )
        default = (found.study_folder or Path()) / "report.html"
        written_by = shlex.join(["python", "-m", "analysis", *sys.argv[1:]])
        page = write_report(
            out or default, result, found, reference=reference, command=written_by, recipe=recipe
        )
    typer.echo(page)
