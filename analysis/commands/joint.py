"""`python -m analysis joint POINTS`: what a recursion is worth, tested against nothing and all."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from analysis.commands import options
from analysis.commands.talk import one_sentence, print_drawn, print_json, print_warnings

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fits.parametric.lawfit import Report

EPILOG = """
[bold]Examples[/bold]

All architectures of a run store together; r is the mean routed depth of each run:
[cyan]python -m analysis joint runs[/cyan]

Points from elsewhere, intervals from whole (budget, r) cells:
[cyan]python -m analysis joint looped.csv --columns n_once=N1,n_rec=N2 --resample budgets[/cyan]

Exit codes: 0 fitted (warnings included), 2 the points or an option cannot be used.
"""


@options.flat
def command(
    chosen: options.Chosen,
    resampling: options.Resampling,
    solving: options.Solving,
    as_json: options.AsJson = False,
    out: options.Out = None,
) -> None:
    """Fit L = E + A (N_once + r^phi N_rec)^-alpha + B D^-beta and test phi against 0 and 1.

    A CSV needs the columns params, tokens, loss, n_once (parameters that a token meets once),
    n_rec (of the looped block, counted once) and r (mean passes through it; 1 for vanilla).
    """
    with one_sentence():
        from analysis.fits.parametric import lawfit, nested
        from analysis.points.table import JOINT_NUMBERS

        found = chosen.load(JOINT_NUMBERS, ("trunk",))
        done = nested.fit_nested(found.table, solving.asked(resampling))
        drawn = options.draw_into(out, lambda folder: _draw(done.free, found.table, folder))
    print_drawn(drawn, as_json)
    if as_json:
        content = {**lawfit.as_json(done.free), **nested.as_json(done), "source": found.source}
        print_json({**content, "warnings": [*found.warnings, *content["warnings"]]})
        return
    typer.echo(f"{len(found.table)} points from {found.source}")
    print_warnings(found.warnings)
    typer.echo("\nL = E + A (N_once + r^phi N_rec)^-alpha + B D^-beta")
    typer.echo("\n".join([*lawfit.as_lines(done.free), *nested.as_lines(done)]))
    print_warnings(done.free.warnings)


def _draw(done: "Report", table: "pd.DataFrame", folder: Path) -> list[Any]:
    from analysis.figures import law_fit

    return list(law_fit.draw_all({"": done}, {"": table}, folder))
