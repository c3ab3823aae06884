"""`python -m analysis figures`: every figure and table of the paper."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.commands import options
from analysis.commands.talk import one_sentence
from ledger.plan_file import StudyFolder

if TYPE_CHECKING:
    from analysis.paper.gallery import Drawn

EPILOG = """
[bold]Examples[/bold]

All figures and tables: from runs/ and studies/ here, the paper's numbers beside them:
[cyan]python -m analysis figures --all[/cyan]

What one study feeds, without the paper:
[cyan]python -m analysis figures studies/sharing --source runs[/cyan]

One of them from the published numbers:
[cyan]python -m analysis figures --only figure_4b --source paper[/cyan]

What is missing is listed with the command that makes its runs; with +scale=toy the same study
runs on a laptop.

Exit codes: 0 drawn (missing ones are listed), 2 the points or an option cannot be used.
"""

Points = Annotated[
    Path | None,
    typer.Argument(
        metavar="[POINTS]",
        callback=options.as_study,
        help="A study, a run store or a CSV. Default: runs/ where there is one.",
        show_default=False,
    ),
]
Every = Annotated[
    bool,
    typer.Option("--all", help="Also what the runs do not feed, from the published numbers."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="This one, as in figure_5a; may be repeated."),
]
Source = Annotated[
    Literal["runs", "paper", "both"],
    typer.Option(help="Draw from your runs, from the published numbers, or one over the other."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where the files and index.html go. Default: <study folder>/figures for a study, "
        "otherwise ./analysis_out/figures.",
        show_default=False,
    ),
]
Throughput = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="For figure 4a: what benchmarks/throughput.py --json prints (.json), or a CSV with "
        "model, tokens_per_s, nll and perhaps batch.",
        show_default=False,
    ),
]


def command(
    points: Points = None,
    every: Every = False,
    only: Only = None,
    out: Out = None,
    source: Source = "both",
    throughput: Throughput = None,
    loss: options.Loss = "causal",
    params: options.Params = "nonembedding",
    allow_mixed: options.AllowMixed = False,
) -> None:
    """Draw the figures and tables of the Mixture-of-Recursions paper, with their data.

    Figures as PNG, SVG, PDF and CSV, tables as CSV, Markdown and LaTeX, and a page over them. A run
    store is read with the studies beside it: each figure takes the study of its name (study=sharing
    for figure 4b), or another one whose runs ask the same.
    """
    with one_sentence():
        from analysis.paper.catalogue import Material, chosen
        from analysis.paper.gallery import draw_entries, write_gallery
        from analysis.paper.runs import find_studies

        entries = chosen(only or [])
        if points is None and source != "paper" and Path("runs").is_dir():
            points = Path("runs")
        studies = find_studies(points, loss) if points is not None and source != "paper" else []
        folder = out or _default_folder(points)
        material = Material(
            points,
            tuple(studies),
            use_runs=source != "paper",
            use_paper=source != "runs",
            folder=folder,
            loss=loss,
            params=params,
            throughput=throughput,
            allow_mixed=allow_mixed,
        )
        also_published = every or bool(only) or points is None or source == "paper"
        drawn = draw_entries(entries, material, also_published)
        written_by = shlex.join(["python", "-m", "analysis", *sys.argv[1:]])
        page = write_gallery(drawn, folder, written_by)
    _print(drawn)
    typer.echo(page)


def _default_folder(points: Path | None) -> Path:
    study = points is not None and StudyFolder(points).plan_file.is_file()
    return points / "figures" if study and points is not None else Path("analysis_out/figures")


def _print(drawn: "Drawn") -> None:
    for entry, outcome in drawn:
        if outcome.saved:
            typer.echo(f"drawn    {entry.name:<22} {'; '.join(outcome.sources)}")
    for entry, outcome in drawn:
        if outcome.missing:
            told = f": {outcome.command}" if outcome.command else ""
            typer.echo(f"missing  {entry.name:<22} {outcome.missing}{told}")
    if any(" -m study=" in outcome.command for _, outcome in drawn if outcome.missing):
        typer.echo("on a laptop: study=quick in place of study=paper, the others with +scale=toy")
