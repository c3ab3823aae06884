"""`python -m analysis fit POINTS`: approach 3, with a certificate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from analysis.commands import options
from analysis.commands.talk import one_sentence, print_drawn, print_json, print_warnings

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fits.parametric.lawfit import Report

EPILOG = """
[bold]Examples[/bold]

The law of each model of a study:
[cyan]python -m analysis fit studies/first[/cyan]

Published points whose columns have other names, as JSON:
[cyan]python -m analysis fit points.csv --columns params=N,tokens=D --json[/cyan]

One law for vanilla, recursive and routed models together:
[cyan]python -m analysis fit runs --law joint[/cyan]

--json holds law, n_points, objective, params, exponents (a, b), interval, certificate, hold_out,
bootstrap and warnings; with several models these stand in models.NAME.

Exit codes: 0 fitted (warnings included), 2 the points or an option cannot be used.
"""

LawName = Annotated[
    Literal["chinchilla", "joint"],
    typer.Option(
        "--law",
        help="chinchilla: E + A/N^alpha + B/D^beta, a fit for each model. joint: N replaced by "
        "N_once + r^phi N_rec, one fit for all models.",
    ),
]


@options.flat
def command(
    chosen: options.Chosen,
    resampling: options.Resampling,
    solving: options.Solving,
    as_json: options.AsJson = False,
    out: options.Out = None,
    law: LawName = "chinchilla",
) -> None:
    """Fit L = E + A/N^alpha + B/D^beta (approach 3), with intervals and a certificate.

    Minimised is the sum of Huber losses of the log residuals. Thousands of starts are scored, the
    best polished by a second-order method; each budget is left out once and predicted. A CSV needs
    the columns params, tokens and loss.
    """
    with one_sentence():
        from analysis.fits.parametric import lawfit, nested
        from analysis.points.table import JOINT_NUMBERS, LAW_NUMBERS

        numbers = JOINT_NUMBERS if law == "joint" else LAW_NUMBERS
        found = chosen.load(numbers, ("trunk",))
        asked = solving.asked(resampling)
        if law == "joint":
            nested.refuse_unlooped(found.table)
            reports = {"": lawfit.report(lawfit.joint(found.table), found.table, asked)}
        else:
            reports = {
                str(model): lawfit.report(lawfit.chinchilla(rows), rows, asked)
                for model, rows in found.table.groupby("model", sort=True)
            }
        drawn = options.draw_into(out, lambda folder: _draw(reports, found.table, folder))
    print_drawn(drawn, as_json)
    if as_json:
        print_json(_json(reports, law, found.source, found.warnings))
        return
    typer.echo(f"{len(found.table)} points from {found.source}")
    print_warnings(found.warnings)
    for model, done in reports.items():
        typer.echo(f"\n{model or 'all models'}: {FORMULAS[law]}")
        typer.echo("\n".join(lawfit.as_lines(done)))
        print_warnings(done.warnings)


def _draw(reports: "dict[str, Report]", table: "pd.DataFrame", folder: Path) -> list[Any]:
    from analysis.figures import law_fit

    tables = {name: table[table["model"] == name] if name else table for name in reports}
    return list(law_fit.draw_all(reports, tables, folder))


FORMULAS = {
    "chinchilla": "L = E + A/N^alpha + B/D^beta",
    "joint": "L = E + A (N_once + r^phi N_rec)^-alpha + B D^-beta",
}


def _json(
    reports: "dict[str, Report]", law: str, source: str, warnings: tuple[str, ...]
) -> dict[str, Any]:
    from analysis.fits.parametric import lawfit

    fits = {model: lawfit.as_json(done) for model, done in reports.items()}
    if len(fits) == 1:
        (only,) = fits.values()
        return {**only, "source": source, "warnings": [*warnings, *only["warnings"]]}
    return {"law": law, "models": fits, "source": source, "warnings": list(warnings)}
