"""`python -m analysis tune STUDY`: the best learning rate and batch, and their laws."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.cautions import Code
from analysis.commands import options
from analysis.commands.talk import one_sentence, print_json, print_warnings
from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.cautions import Caution
    from analysis.fits.tuning.fit import CurveTuning, Optimum, Tuned
    from analysis.fits.tuning.law import Law
    from analysis.points.table import PointSet

EPILOG = """
[bold]Examples[/bold]

What study=tune has swept, as laws in studies/tune/recipe.json:
[cyan]python -m analysis tune studies/tune[/cyan]

The learning rate alone, of the runs with one batch:
[cyan]python -m analysis tune studies/tune --over train.lr --where train.batch_size=4[/cyan]

Exit codes: 0 fitted (warnings included), 2 no optimum is enclosed, or the points or an option cannot be used.
"""  # noqa: E501

Over = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SETTING",
        help="A swept setting, as train.lr; twice for two. Default: the numbers that vary within "
        "one model, size and budget.",
        show_default=False,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SETTING=VALUE",
        help="Only the runs with this value, as train.batch_size=4; may be given again.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The recipe file. Default: <study folder>/recipe.json for a study, otherwise none.",
        show_default=False,
    ),
]


@options.flat
def command(
    chosen: options.Chosen,
    resampling: options.Resampling,
    over: Over = None,
    where: Where = None,
    as_json: options.AsJson = False,
    out: Out = None,
) -> None:
    """Fit the best learning rate and batch of each (model, size, budget), and their laws.

    A quadratic in the logarithms of what was swept; optima at the edge of what was tried are named
    and left out. The laws c N^-a D^-b through the others go into a recipe file, which
    `train.recipe=FILE` follows and `compare --recipe FILE` judges runs by.
    """
    with one_sentence():
        from analysis.fits.tuning.cells import tune_table
        from analysis.fits.tuning.fit import fit_tuning
        from analysis.fits.tuning.recipe import recipe_of

        found = chosen.load(names=("trunk", "settings"))
        table = tune_table(found.table, over or (), _pairs(where or []))
        tuned = fit_tuning(table, resampling.bootstrap, resampling.seed)
        kept_at = where or []  # what the laws hold at
        file = _file(found, out)
        source = shlex.join(["python", "-m", "analysis", *sys.argv[1:]])
        name = file.absolute().parent.name if file else "tune"
        written = recipe_of(tuned, table, name, source, found.params)
        if file is not None and written.recipe is not None:
            _write(file, written.recipe)
    kept = file if written.recipe is not None else None
    # that runs differ in what is swept is what was asked for
    points = [w for w in found.warnings if w.code is not Code.SPLIT_MODEL]
    warnings = [*points, *tuned.warnings, *written.warnings]
    if as_json:
        print_json(_json(tuned, found, kept, warnings, kept_at))
        return
    typer.echo(f"{len(found.table)} points from {found.source}, over {', '.join(tuned.over)}")
    for curve in tuned.curves.values():
        _print(curve, tuned.over)
    print_warnings(warnings)
    if kept is not None:
        typer.echo(f"\nRecipe: {kept}\nNext: {_next(tuned, kept, kept_at)}")
        typer.echo("      with study= and the settings of the study that is to follow it")


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise AnalysisError(f"--where {text}: write SETTING=VALUE, as train.batch_size=4.")
        pairs[name] = value
    return pairs


def _file(found: "PointSet", out: Path | None) -> Path | None:
    if out is not None and out.is_dir():
        raise AnalysisError(f"--out {out} is a folder: name a file, as in --out {out}/recipe.json.")
    default = found.study_folder / "recipe.json" if found.study_folder else None
    return out or default


def _write(file: Path, recipe: Any) -> None:
    from analysis.files import make_folder
    from ledger.recipe import write_recipe

    make_folder(file.absolute().parent)
    write_recipe(file, recipe)


def _next(tuned: "Tuned", file: Path, kept_at: list[str]) -> str:
    """The line to type: the models of the recipe, by their laws, at what the laws hold at."""
    models = ",".join(dict.fromkeys(c.model for c in tuned.curves.values() if c.laws))
    path = shlex.quote(os.path.relpath(file))
    settings = " ".join([f"train.recipe={path}", *map(shlex.quote, kept_at)])
    return f"python sweep.py -m model={models} {settings} launch=plan"


def _print(curve: "CurveTuning", over: tuple[str, ...]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(box=box.SIMPLE_HEAD, title=f"\n{escape(curve.curve)}", title_justify="left")
    for heading in ("size", "budget\n(FLOPs)", *over, "loss\n(nats/token)", "optimum", "runs"):
        table.add_column(heading, justify="right")
    for one in curve.optima:
        table.add_row(*_cells(one, over))
    console.print(table)
    for law in curve.laws:
        typer.echo(_law_text(law))
    if not curve.laws:
        typer.echo("No law: no optimum is enclosed.")


def _cells(one: "Optimum", over: tuple[str, ...]) -> list[str]:
    from rich.markup import escape

    from analysis.formatting import compute

    values = [_tried(one, k) for k in range(len(over))]
    if one.values is not None:
        values = []
        for k, value in enumerate(one.values):
            ends = (
                f" [{one.intervals[k][0]:.3g}, {one.intervals[k][1]:.3g}]" if one.intervals else ""
            )
            values.append(f"{value:.3g}{ends}")
    loss = "-" if one.loss is None else f"{one.loss:.4f}"
    runs = str(len(one.cell.loss))
    return [escape(one.cell.size), compute(one.cell.budget), *values, loss, str(one.found), runs]


def _tried(one: "Optimum", k: int) -> str:
    tried = one.cell.tried(k)
    return f"- (tried {tried[0]:.3g} to {tried[-1]:.3g})"


def _law_text(law: "Law") -> str:
    from analysis.formatting import count

    terms = [
        f" {name}^{-power:.3f}{_ends(ends and (-ends[1], -ends[0]))}"
        for name, power, ends, used in (
            ("N", law.a, law.a_interval, law.uses[0]),
            ("D", law.b, law.b_interval, law.uses[1]),
        )
        if used
    ]
    n, d = law.centre
    said = f"{law.setting} = {law.c:.4g}{''.join(terms)}; {law.value:.3g}"
    said += f"{_ends(law.value_interval)} at N = {count(n)}, D = {count(d)}"
    if law.scatter is not None:
        said += f"; optima scatter {law.scatter:.2g} x their errors"
    return said


def _ends(interval: tuple[float, float] | None) -> str:
    return f" [{interval[0]:.3g}, {interval[1]:.3g}]" if interval else " (no interval)"


def _json(
    tuned: "Tuned",
    found: "PointSet",
    file: Path | None,
    warnings: "list[Caution]",
    kept_at: list[str],
) -> dict[str, Any]:
    return {
        "over": list(tuned.over),
        "models": {
            name: {
                "model": curve.model,
                "optima": [_optimum_json(one, tuned.over) for one in curve.optima],
                "laws": {law.setting: _law_json(law) for law in curve.laws},
            }
            for name, curve in tuned.curves.items()
        },
        "noise": vars(tuned.noise),
        "resamples": tuned.resamples,
        "recipe": str(file) if file else None,
        "next": _next(tuned, file, kept_at) if file else None,
        "source": found.source,
        "warnings": warnings,
    }


def _optimum_json(one: "Optimum", over: tuple[str, ...]) -> dict[str, Any]:
    cell = one.cell
    ends = one.intervals or [None] * len(over)
    values = [None] * len(over) if one.values is None else [float(v) for v in one.values]
    return {
        **{"size": cell.size, "budget": cell.budget, "params": cell.params},
        **{"tokens": cell.tokens, "status": str(one.found), "reason": one.reason},
        "values": dict(zip(over, values, strict=True)),
        "intervals": {n: list(e) if e else None for n, e in zip(over, ends, strict=True)},
        "tried": {n: [float(v) for v in cell.tried(k)] for k, n in enumerate(over)},
        "loss": one.loss,
        "n_points": len(cell.loss),
    }


def _law_json(law: "Law") -> dict[str, Any]:
    pairs = {
        name: list(ends) if ends else None
        for name, ends in (
            ("a_interval", law.a_interval),
            ("b_interval", law.b_interval),
            ("value_interval", law.value_interval),
        )
    }
    n, d = law.centre
    numbers = {"c": law.c, "a": law.a, "b": law.b, "value": law.value, "scatter": law.scatter}
    return {**numbers, **pairs, "at": {"params": n, "tokens": d}, "note": law.note}
