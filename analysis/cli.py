"""The command line: `python -m analysis isoflop POINTS`.

Heavy imports (pandas, matplotlib) stand inside the command: `--help` should not wait for them.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.isoflop import IsoflopResult
    from analysis.points import PointSet

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def main() -> None:
    """Fit scaling studies and draw them: tables in, exponents and figures out."""


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


Points = Annotated[
    Path,
    typer.Argument(
        metavar="POINTS",
        help="A CSV file, a run store (runs/) or a study folder (studies/<name>/).",
        show_default=False,
    ),
]
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
Bootstrap = Annotated[
    int, typer.Option(min=0, metavar="N", help="Resamples behind the 95 % intervals; 0 for none.")
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the resampling.")]
StudyName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With a run store: only the runs of studies/NAME, beside it.",
        show_default=False,
    ),
]
Loss = Annotated[
    Literal["causal", "topk"],
    typer.Option(
        help="With a run store: the validation loss to fit. topk routes as in training and sees "
        "later tokens; causal is what a deployed model gets."
    ),
]
Params = Annotated[
    Literal["nonembedding", "total"],
    typer.Option(help="With a run store: which parameters count; a shared weight counts once."),
]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed", help="Fit points of several FLOP conventions or corpora together."
    ),
]


@app.command(epilog=EPILOG)
def isoflop(
    points: Points,
    as_json: AsJson = False,
    out: Out = None,
    reference: Reference = True,
    window: Window = None,
    bootstrap: Bootstrap = 1000,
    seed: Seed = 0,
    study: StudyName = None,
    loss: Loss = "causal",
    params: Params = "nonembedding",
    allow_mixed: AllowMixed = False,
) -> None:
    """Fit isoFLOP curves (approach 2): exponents, figures and a page.

    At each budget a parabola of loss in log params, then N_opt ~ C^a and D_opt ~ C^b through its
    minima. A minimum at the edge of the tested sizes, a parabola that opens downwards and a budget
    with fewer than three sizes are named and left out of the law.
    """
    try:
        from analysis.isoflop import fit_isoflop
        from analysis.points import load_points

        found = load_points(points, loss=loss, params=params, study=study, allow_mixed=allow_mixed)
        result = fit_isoflop(found.table, window=window, resamples=bootstrap, seed=seed)
        page = None if as_json and out is None else _write_page(result, found, out, reference)
    except AnalysisError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if as_json:
        _print_json(result, found)
    else:
        _print_tables(result, found)
    if page is not None:
        typer.echo(page, err=as_json)


def _print_json(result: "IsoflopResult", points: "PointSet") -> None:
    from analysis import verdict

    typer.echo(json.dumps(verdict.as_json(result, points), indent=2, allow_nan=False))


def _print_tables(result: "IsoflopResult", points: "PointSet") -> None:
    from rich.console import Console

    from analysis.terminal import print_result

    print_result(Console(), result, points)


def _write_page(
    result: "IsoflopResult", points: "PointSet", out: Path | None, reference: bool
) -> Path:
    from analysis.index import write_index

    default = points.study_folder / "analysis" if points.study_folder else Path("analysis_out")
    command = shlex.join(["python", "-m", "analysis", *sys.argv[1:]])
    return write_index(out or default, result, points, with_reference=reference, command=command)
