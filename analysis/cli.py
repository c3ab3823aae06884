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
    add_completion=False, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False
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


@app.command(epilog=EPILOG)
def isoflop(
    points: Annotated[
        Path,
        typer.Argument(
            metavar="POINTS",
            help="A CSV file, a run store (runs/) or a study folder (studies/<name>/).",
            show_default=False,
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON only; write files only if --out is given.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where figures and index.html go. Default: <study folder>/analysis for a study, "
            "otherwise ./analysis_out.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        bool,
        typer.Option(help="Show the paper's Table 9 beside, drawn and fitted the same way."),
    ] = True,
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Fit each parabola to the lowest size and the K nearest on either side. Default: "
            "3 where a budget has more than 7 sizes, otherwise all.",
            metavar="K",
            show_default=False,
        ),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples behind the 95 % intervals; 0 for none.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    study: Annotated[
        str | None,
        typer.Option(
            help="With a run store: only the runs of studies/NAME, beside it.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    loss: Annotated[
        Literal["causal", "topk"],
        typer.Option(
            help="With a run store: the validation loss to fit. topk routes as in training and "
            "sees later tokens; causal is what a deployed model gets."
        ),
    ] = "causal",
    params: Annotated[
        Literal["nonembedding", "total"],
        typer.Option(help="With a run store: which parameters count, each shared weight once."),
    ] = "nonembedding",
    allow_mixed: Annotated[
        bool,
        typer.Option(
            "--allow-mixed", help="Fit points of several FLOP conventions or corpora together."
        ),
    ] = False,
) -> None:
    """Fit IsoFLOP curves (approach 2): a parabola of loss in log params at each budget, then
    N_opt ~ C^a and D_opt ~ C^b through the minima that the points enclose.

    A minimum at the edge of the tested sizes, a parabola that opens downwards and a budget with
    fewer than three sizes are named and left out of the law.
    """
    try:
        from analysis.isoflop import fit_isoflop
        from analysis.points import load_points

        found = load_points(
            points, loss=loss, params=params, study=study, allow_mixed=allow_mixed
        )
        result = fit_isoflop(found.table, window=window, resamples=bootstrap, seed=seed)
        if as_json:
            from analysis import verdict

            content = verdict.as_json(result, found)
            typer.echo(json.dumps(content, indent=2, allow_nan=False))
        else:
            from rich.console import Console

            from analysis.terminal import print_result

            print_result(Console(), result, found)
        if out is not None or not as_json:
            page = _write_page(result, found, out, reference)
            typer.echo(page, err=as_json)
    except AnalysisError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def _write_page(
    result: "IsoflopResult", points: "PointSet", out: Path | None, reference: bool
) -> Path:
    from analysis.index import write_index

    default = points.study_folder / "analysis" if points.study_folder else Path("analysis_out")
    command = shlex.join(["python", "-m", "analysis", *sys.argv[1:]])
    return write_index(out or default, result, points, with_reference=reference, command=command)
