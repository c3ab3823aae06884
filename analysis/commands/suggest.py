"""`python -m analysis suggest POINTS`: the most informative runs for their cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.cautions import Caution, Code
from analysis.commands import options
from analysis.commands.talk import one_sentence, print_json, print_warnings
from analysis.errors import AnalysisError
from ledger.plan_file import StudyFolder

if TYPE_CHECKING:
    from analysis.design.prices import Price
    from analysis.design.suggest import Suggested, Suggestion
    from analysis.points.table import PointSet

EPILOG = """
[bold]Examples[/bold]

Three runs for each model of a study, each a repeat of a point with another seed:
[cyan]python -m analysis suggest studies/first --runs 3[/cyan]

From what a plan could train, other sizes and budgets included, at its price:
[cyan]python sweep.py -m study=paper size=135m,360m budget=1e18,4e18 launch=plan launch.plan_file=more.json[/cyan]
[cyan]python -m analysis suggest studies/first --candidates more.json[/cyan]

Exit codes: 0 printed, 2 the points or an option cannot be used.
"""  # noqa: E501

Runs = Annotated[int, typer.Option(min=1, metavar="N", help="How many runs, for each model.")]
Candidates = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="What may be run: what launch.plan_file wrote. Default: the points' own sizes and "
        "budgets, with other seeds.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Only this one of the models.", show_default=False),
]


@options.flat
def command(
    chosen: options.Chosen,
    runs: Runs = 3,
    candidates: Candidates = None,
    model: Model = None,
    as_json: options.AsJson = False,
) -> None:
    """The next runs that shrink the interval of the exponent most for what they cost.

    Judged by the law of approach 3 through the points and the noise of its residuals; each run
    with the half width to expect before and after it, and the overrides that launch it.
    """
    with one_sentence():
        from analysis.points.table import LAW_NUMBERS

        found = chosen.load((*LAW_NUMBERS, "budget"), ("overrides",))
        done, refused = _suggest(found, runs, candidates, model)
    warnings = [*found.warnings, *refused]
    if as_json:
        print_json({"models": [_json(one) for one in done], "warnings": warnings})
        return
    typer.echo(f"{len(found.table)} points from {found.source}")
    for one in done:
        _print(one)
    typer.echo(
        "\nHalf widths (95 %) are those of independent noise as large as the residuals, around the "
        "fitted law;\nthe bootstrap of `fit` only reaches what these points happen to be."
    )
    _print_overrides([overrides(run) for one in done for run in one.runs])
    print_warnings(warnings)


def _suggest(
    found: "PointSet", runs: int, file: Path | None, model: str | None
) -> "tuple[list[Suggested], list[Caution]]":
    from analysis.design.grid import plan_grid
    from analysis.design.law import law_of
    from analysis.design.suggest import planned, repeats, suggest
    from analysis.points.table import curve_of

    known = {
        str(name): rows for name, rows in found.table.groupby(curve_of(found.table), sort=True)
    }
    if model is not None and model not in known:
        raise AnalysisError(f"--model {model} is not among the models: {', '.join(known)}.")
    plan = plan_grid(file) if file else None
    prices, unit = _prices(found) if plan is None else ({}, "")
    done, refused = [], []
    for name, rows in known.items():
        if model not in (None, name):
            continue
        try:
            law = law_of(rows, f"{name} of {found.source}")
            options_ = repeats(rows, prices, unit) if plan is None else planned(plan, rows)
            done.append(suggest(law, rows, options_, runs))
        except AnalysisError as error:
            refused.append(Caution(Code.NO_SUGGESTION, str(error), name))
    if not done:
        raise AnalysisError(refused[0].text)
    return done, refused


def _prices(found: "PointSet") -> "tuple[dict[str, Price], str]":
    from analysis.design.grid import plan_grid
    from analysis.design.prices import prices
    from analysis.report import records

    folder = found.study_folder
    plan = plan_grid(StudyFolder(folder).plan_file) if folder is not None else None
    return prices(found.table, records.speeds(records.of_points(found.table)), plan)


def overrides(run: "Suggestion") -> str | None:
    """What `sweep.py -m` takes: the axes of the run, and what its curve differs in; None for a size
    without a name, which no setting stands for."""
    from analysis.formatting import typed

    if not run.size:
        return None
    axes = [f"model={run.model}", f"size={run.size}", f"budget={typed(run.budget)}"]
    return " ".join([*axes, f"seed={run.seed}", run.settings]).strip()


def _print_overrides(lines: list[str | None]) -> None:
    if any(lines):
        typer.echo("\nEach line goes behind the command that launched the study:")
    for line in lines:
        if line:
            typer.echo(f"    python sweep.py -m ... {line}")
    if not all(lines):
        typer.echo("\nNo overrides for sizes without a name: give the points a column size.")


def _json(done: "Suggested") -> dict[str, Any]:
    runs = [{**vars(run), "overrides": overrides(run)} for run in done.runs]
    return {**vars(done), "runs": runs, "cost": done.cost}


def _speeds(done: "Suggested") -> str:
    """By which speeds the runs are priced."""
    if done.unit == "FLOPs":
        return ""
    assumed = [run for run in done.runs if not run.measured]
    if not assumed:
        return " at measured speeds"
    return f" at {'assumed' if len(assumed) == len(done.runs) else 'partly assumed'} speeds"


def _print(done: "Suggested") -> None:
    from analysis.formatting import compute

    def price(value: float) -> str:
        return compute(value) if done.unit == "FLOPs" else f"{value:.3g}"

    first, last = done.runs[0].before, done.runs[-1].after
    typer.echo(
        f"\n{done.model}: a {done.exponent:.3f} +-{first:.3f} with {done.points} points (noise "
        f"{done.noise:.4f} nats); +-{last:.3f} with these, {price(done.cost)} {done.unit}"
        f"{_speeds(done)}"
    )
    for run in done.runs:
        typer.echo(
            f"  {run.size or f'{run.params:.3g} params'} at {compute(run.budget)}, seed {run.seed}:"
            f" +-{run.before:.3f} -> +-{run.after:.3f} for {price(run.cost)} {done.unit}"
        )
