"""`python -m analysis inspection FILE`: the figures of what `python -m mor inspect` measured."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands.talk import one_sentence, print_drawn
from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.paper.runs import Run

EPILOG = """
[bold]Examples[/bold]

What one run does with a text, measured and drawn in one go:
[cyan]python -m mor inspect runs/mor-57k-6e10-1a2b3c4d --text mine.txt[/cyan]

Drawn again, into another folder:
[cyan]python -m analysis inspection runs/mor-57k-6e10-1a2b3c4d/inspections/mine.json --out figures[/cyan]

Exit codes: 0 drawn, 2 the file cannot be used.
"""  # noqa: E501

SCHEMA = 1
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="What `mor inspect` wrote.", show_default=False)
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Default: the file's own folder.", show_default=False),
]


def command(file: File, out: Out = None) -> None:
    """Draw an inspection: router scores, loss by depth, depth of each token, keys and values."""
    with one_sentence():
        from analysis.files import make_folder

        content = read(file)
        folder = out or file.parent
        make_folder(folder)
        drawn = draw(content, folder, file.stem)
    print_drawn([folder / figure.name("png") for figure in drawn], as_json=False)


def read(file: Path) -> dict[str, Any]:
    """The content of an inspection. Raises AnalysisError for anything else."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise AnalysisError(f"{file} cannot be read as an inspection ({error}).") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise AnalysisError(f"{file} is not an inspection: name a file that `mor inspect` wrote.")
    return content


def draw(content: dict[str, Any], folder: Path, stem: str) -> list[Any]:
    """Every figure that the model has something for."""
    from analysis.figures import kv_depth, routing, token_depth

    runs = as_runs(content)
    last = runs[-1]
    drawn = []
    if routing.has_scores(last):
        drawn.append(routing.draw_scores(last, folder, f"{stem}_scores"))
    if with_depths := [run for run in runs if routing.has_depths(run)]:
        drawn.append(routing.draw_depths(with_depths, folder, f"{stem}_loss_by_depth"))
    if token_depth.has_sample(last):
        drawn.append(token_depth.draw(last, folder, f"{stem}_token_depth"))
    if kv_depth.has_statistics(last):
        drawn.append(kv_depth.draw(last, folder, f"{stem}_keys_values"))
    return drawn


def as_runs(content: dict[str, Any]) -> "list[Run]":
    """Each checkpoint as a run that ended there."""
    from analysis.paper.runs import Run
    from ledger.result import Result

    several = len(content["checkpoints"]) > 1
    runs = []
    for each in content["checkpoints"]:
        name = f"{content['source']}, {each['checkpoint']}" if several else content["source"]
        by_depth = each["nll_by_depth"]
        routing = each["routing"] or ({"nll_by_depth": list(by_depth.values())} if by_depth else {})
        settings = content["settings"]
        result = Result(
            run_id=name,
            model=each["checkpoint"] if several else settings["model"]["architecture"],
            size=settings["size"]["name"],
            settings=settings,
            routing=routing,
            kv_statistics=each["kv_statistics"],
        )
        runs.append(Run(result, Path()))
    return runs
