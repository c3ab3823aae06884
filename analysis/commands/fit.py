"""`python -m analysis fit POINTS`: approach 3, with a certificate."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.cautions import Caution
from analysis.commands import options
from analysis.commands.talk import one_sentence, print_drawn, print_json, print_warnings
from analysis.fits.parametric.registry import LAWS

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

LawName = StrEnum("LawName", list(LAWS))  # type: ignore[misc]
ChosenLaw = Annotated[
    LawName,
    typer.Option(
        "--law",
        help="chinchilla: E + A/N^alpha + B/D^beta, a fit for each model. joint: N replaced by "
        "N_once + r^phi N_rec, one fit for all models.",
    ),
]


DEFAULT_LAW = LawName("chinchilla")


@options.flat
def command(
    chosen: options.Chosen,
    resampling: options.Resampling,
    solving: options.Solving,
    as_json: options.AsJson = False,
    out: options.Out = None,
    law: ChosenLaw = DEFAULT_LAW,
) -> None:
    """Fit L = E + A/N^alpha + B/D^beta (approach 3), with intervals and a certificate.

    Minimised is the sum of Huber losses of the log residuals. Thousands of starts are scored, the
    best polished by a second-order method; each budget is left out once and predicted. A CSV needs
    the columns params, tokens and loss.
    """
    with one_sentence():
        from analysis.fits.parametric import lawfit
        from analysis.fits.parametric.registry import law_named

        kind = law_named(law)
        found = chosen.load(kind.columns, ("trunk",))
        asked = solving.asked(resampling)
        kind.refuse(found.table)
        parts = {"": found.table} if kind.across_models else dict(_models(found.table))
        reports = {
            model: lawfit.report(kind.of(rows), rows, asked) for model, rows in parts.items()
        }
        drawn = options.draw_into(out, lambda folder: _draw(reports, found.table, folder))
    print_drawn(drawn, as_json)
    if as_json:
        print_json(_json(reports, law, found.source, found.warnings))
        return
    typer.echo(f"{len(found.table)} points from {found.source}")
    print_warnings(found.warnings)
    for model, done in reports.items():
        typer.echo(f"\n{model or 'all models'}: {kind.formula}")
        typer.echo("\n".join(lawfit.as_lines(done)))
        print_warnings(done.warnings)


def _models(table: "pd.DataFrame") -> "Iterator[tuple[str, pd.DataFrame]]":
    from analysis.points.table import curve_of

    return ((str(model), rows) for model, rows in table.groupby(curve_of(table), sort=True))


def _draw(reports: "dict[str, Report]", table: "pd.DataFrame", folder: Path) -> list[Any]:
    from analysis.figures import law_fit
    from analysis.points.table import curve_of

    names = curve_of(table)
    tables = {name: table[names == name] if name else table for name in reports}
    return list(law_fit.draw_all(reports, tables, folder))


def _json(
    reports: "dict[str, Report]", law: str, source: str, warnings: tuple[Caution, ...]
) -> dict[str, Any]:
    from analysis.fits.parametric import lawfit

    fits = {model: lawfit.as_json(done) for model, done in reports.items()}
    if len(fits) == 1:
        (only,) = fits.values()
        return {**only, "source": source, "warnings": [*warnings, *only["warnings"]]}
    return {"law": law, "models": fits, "source": source, "warnings": list(warnings)}
