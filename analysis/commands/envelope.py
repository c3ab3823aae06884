"""`python -m analysis envelope POINTS`: approach 1."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from analysis.commands import options
from analysis.commands.talk import one_sentence, print_drawn, print_json, print_warnings

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fits.envelope import Envelope

EPILOG = """
[bold]Examples[/bold]

Finished runs, one curve a size through its budgets:
[cyan]python -m analysis envelope runs[/cyan]

The logged training loss of the runs' trunks:
[cyan]python -m analysis envelope runs --curves metrics[/cyan]

The validations on the way of runs that were trained with train.eval_points:
[cyan]python -m analysis envelope runs --curves validation[/cyan]

Points from elsewhere (params, tokens, loss; budget where known):
[cyan]python -m analysis envelope points.csv --json[/cyan]

Exit codes: 0 fitted (warnings included), 2 the points or an option cannot be used.
"""

Curves = Annotated[
    Literal["points", "metrics", "validation"],
    typer.Option(
        help="points: the loss of finished runs. metrics: the training loss as it was logged in "
        "metrics.jsonl of the trunks (or of runs without one), before the gain of a cool-down. "
        "validation: the validations on the way of these (train.eval_points), of models all of "
        "whose sizes have them."
    ),
]


@options.flat
def command(
    chosen: options.Chosen,
    resampling: options.Resampling,
    as_json: options.AsJson = False,
    out: options.Out = None,
    curves: Curves = "points",
) -> None:
    """Fit N_opt ~ C^a along the lower envelope of training curves (approach 1).

    Where the lowest curve is the smallest or the largest size that was trained to that compute,
    there is an edge, not a minimum: those computes are left out of the law.
    """
    with one_sentence():
        from analysis.fits.envelope import fit_envelope
        from analysis.points.curves import from_metrics, from_points, from_validation
        from analysis.points.table import LAW_NUMBERS, curve_of

        found = chosen.load(LAW_NUMBERS, ("trunk",))
        if curves == "metrics":
            table, said = from_metrics(found.table)
        elif curves == "validation":
            table, said = from_validation(found.table, found.loss)
        else:
            table, said = from_points(found.table), []
        warnings = [*found.warnings, *said]
        done = [
            fit_envelope(str(model), rows, resamples=resampling.bootstrap, seed=resampling.seed)
            for model, rows in table.groupby(curve_of(table), sort=True)
        ]
        drawn = options.draw_into(
            out, lambda folder: _draw(done, table.assign(model=curve_of(table)), folder)
        )
    print_drawn(drawn, as_json)
    if as_json:
        models = {envelope.model: _json(envelope) for envelope in done}
        content = {"models": models, "curves": curves, "source": found.source}
        print_json({**content, "warnings": warnings})
        return
    typer.echo(f"{len(found.table)} points from {found.source}, curves of {curves}")
    print_warnings(warnings)
    for envelope in done:
        _print(envelope)


def _draw(done: "list[Envelope]", curves: "pd.DataFrame", folder: Path) -> list[Any]:
    from analysis.figures import envelope_curves

    return [envelope_curves.draw(done, curves, folder, "envelope")]


def _json(done: "Envelope") -> dict[str, Any]:
    a, b = done.params_law, done.tokens_law
    columns = ("compute", "params", "tokens", "loss", "interior")
    rows = zip(*(getattr(done, column).tolist() for column in columns), strict=True)
    return {
        "a": a.exponent,
        "a_interval": list(a.interval) if a.interval else None,
        "b": b.exponent,
        "b_interval": list(b.interval) if b.interval else None,
        "n_curves": done.n_curves,
        "n_points": done.n_points,
        "envelope": [dict(zip(columns, row, strict=True)) for row in rows],
        "warnings": list(done.warnings),
    }


def _print(done: "Envelope") -> None:
    from analysis.compare.verdict import law_text
    from analysis.formatting import compute, count

    typer.echo(f"\n{done.model}: {done.n_curves} curves, {done.n_points} points")
    first = True
    for row in range(len(done.params)):
        if first or done.params[row] != done.params[row - 1]:
            edge = "" if done.interior[row] else " (an edge: left out of the law)"
            typer.echo(
                f"from {compute(done.compute[row])} FLOPs the best size is "
                f"{count(done.params[row])}, loss {done.loss[row]:.4f}{edge}"
            )
        first = False
    for symbol, law in (("N_opt", done.params_law), ("D_opt", done.tokens_law)):
        typer.echo(law_text(symbol, law))
    print_warnings(done.warnings)
