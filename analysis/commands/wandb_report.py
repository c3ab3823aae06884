"""`python -m analysis wandb-report POINTS`: the report as a page of a W&B project."""

from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands import options
from analysis.commands.talk import one_sentence
from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.points.table import PointSet
    from analysis.report.wandb_page import Place

EPILOG = """
[bold]Examples[/bold]

A study whose runs were tracked by W&B (runtime.wandb=online):
[cyan]python -m analysis wandb-report studies/first --project us/mor-isoflop[/cyan]

The same, with the points read from W&B, too:
[cyan]python -m analysis wandb-report wandb://us/mor-isoflop/first[/cyan]

Exit codes: 0 published, 2 the points or an option cannot be used, or W&B cannot be reached.
"""

Project = Annotated[
    str | None,
    typer.Option(
        metavar="ENTITY/PROJECT",
        help="Where the page goes. Default: the project of wandb:// points.",
        show_default=False,
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The runs that its panels show. Default: the study, or the group of wandb:// points.",
        show_default=False,
    ),
]


@options.flat
def command(
    chosen: options.Chosen,
    resampling: options.Resampling,
    project: Project = None,
    group: Group = None,
    window: options.Window = None,
) -> None:
    """Publish the report in a W&B project: the same words and tables, with panels over its runs.

    Needs a W&B key (wandb login, or WANDB_API_KEY); prints the address of the page.
    """
    with one_sentence():
        from pathlib import Path

        from analysis.compare.mistuning import COLUMNS
        from analysis.fits.isoflop import fit_isoflop
        from analysis.points.wandb_client import refuse_without_key
        from analysis.report.page import gather
        from analysis.report.wandb_page import publish

        found = chosen.load(names=("trunk", *COLUMNS))
        place = _place(found, project, group)
        refuse_without_key()  # before the fits
        result = fit_isoflop(
            found.table, window=window, resamples=resampling.bootstrap, seed=resampling.seed
        )
        content = gather(Path(), result, found, False, "")
        address = publish(content, place, f"{content['title']}: scaling study")
    typer.echo(address)


def _place(found: "PointSet", project: str | None, group: str | None) -> "Place":
    from analysis.report.wandb_page import Place

    scheme, _, rest = found.source.partition("://")
    parts = rest.split("/") if scheme == "wandb" else []
    named = project.split("/") if project else parts[:2]
    if not project and not parts:
        raise AnalysisError(
            "--project is missing, which names where the page goes: type --project entity/project."
        )
    if len(named) != 2 or not all(named):
        raise AnalysisError(
            f"--project {'/'.join(named)!r} does not name where the page goes: type "
            "--project entity/project."
        )
    study = found.study_folder.resolve().name if found.study_folder else None
    return Place(named[0], named[1], group or study or (parts[2] if len(parts) > 2 else None))
