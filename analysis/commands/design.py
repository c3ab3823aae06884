"""`python -m analysis design`: the interval a planned grid would give, before it is paid for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.cautions import Caution, Code
from analysis.commands import options
from analysis.commands.talk import one_sentence, print_json, print_warnings
from analysis.errors import AnalysisError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.design.law import TrueLaw
    from analysis.design.outlook import Outlook

EPILOG = """
[bold]Examples[/bold]

A grid as typed, under the published law:
[cyan]python -m analysis design --sizes 42M,106M,277M,671M --budgets 2e18,5e18,1.65e19 --noise 0.003[/cyan]

The runs of a plan, under the law of runs that are done:
[cyan]python sweep.py -m study=paper launch=plan launch.plan_file=plan.json[/cyan]
[cyan]python -m analysis design --plan plan.json --law studies/first[/cyan]

Exit codes: 0 printed (risks included), 2 an option cannot be used.
"""  # noqa: E501

Sizes = Annotated[
    str | None,
    typer.Option(metavar="N,...", help="Parameters, as in 42M,1.7B.", show_default=False),
]
Budgets = Annotated[
    str | None,
    typer.Option(metavar="C,...", help="FLOPs, as in 2e18,5e18; D = C / 6N.", show_default=False),
]
PlanFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="In place of sizes and budgets: what launch.plan_file wrote, or a study's plan.json.",
        show_default=False,
    ),
]
Noise = Annotated[
    float | None,
    typer.Option(
        min=1e-9,
        metavar="NATS",
        help="Standard deviation of one run's loss, nats per token. Default: 0.003, or that of the "
        "residuals where --law names points.",
        show_default=False,
    ),
]
LawSource = Annotated[
    str,
    typer.Option(
        "--law",
        metavar="published|POINTS",
        help="The law taken as true: the published one (arXiv 2404.10102), or approach 3 through "
        "points of yours, model by model.",
    ),
]
Seeds = Annotated[int, typer.Option(min=1, metavar="N", help="Runs of each typed point.")]
Simulations = Annotated[int, typer.Option(min=100, metavar="N", help="Studies simulated.")]

PUBLISHED = "published"
NOISE = 0.003


def command(
    sizes: Sizes = None,
    budgets: Budgets = None,
    plan: PlanFile = None,
    noise: Noise = None,
    law: LawSource = PUBLISHED,
    seeds: Seeds = 1,
    simulations: Simulations = 2000,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
    allow_mixed: options.AllowMixed = False,
) -> None:
    """Before spending: the interval to expect for the exponent, and the risk of edge minima.

    The grid is simulated under a law and a noise that are taken as true, and fitted as isoflop
    fits. A budget whose minimum is often at an edge needs other sizes, not more runs.
    """
    with one_sentence():
        from analysis.design.outlook import outlook

        grid = _grid(sizes, budgets, plan, seeds)
        laws = _laws(law, grid, allow_mixed)
        done = [
            (outlook(model, rows, laws[model], used, simulations, seed), laws[model], used)
            for model, rows in ((str(m), r) for m, r in grid.groupby("model", sort=False))
            for used in [noise or laws[model].noise or NOISE]
        ]
    warnings = [w for one, law_of, _ in done for w in _warnings(one, law_of, grid)]
    if as_json:
        print_json({"grids": [_json(*one) for one in done], "warnings": warnings})
        return
    for one, law_used, used in done:
        _print(one, law_used, used, simulations)
    print_warnings(dict.fromkeys(warnings))


def _grid(sizes: str | None, budgets: str | None, plan: Path | None, seeds: int) -> "pd.DataFrame":
    from analysis.design.grid import plan_grid, typed_grid

    if plan is not None:
        if sizes or budgets:
            raise AnalysisError("--plan names the whole grid: leave --sizes and --budgets out.")
        return plan_grid(plan)
    if not sizes or not budgets:
        raise AnalysisError(
            "design needs a grid: give --sizes 42M,106M,277M --budgets 2e18,5e18, or --plan FILE."
        )
    return typed_grid(sizes, budgets, seeds)


def _laws(source: str, grid: "pd.DataFrame", allow_mixed: bool) -> "dict[str, TrueLaw]":
    from analysis.design import law as design_law
    from analysis.design.grid import refuse_unlike
    from analysis.points.load import load_points
    from analysis.points.table import LAW_NUMBERS, Wanted, curve_of

    models = [str(model) for model in grid["model"].unique()]
    if source == PUBLISHED:
        return dict.fromkeys(models, design_law.PUBLISHED)
    points = load_points(Path(source), allow_mixed=allow_mixed, wanted=Wanted(LAW_NUMBERS)).table
    known = {str(model): rows for model, rows in points.groupby(curve_of(points), sort=True)}
    if models == ["grid"] and len(known) == 1:
        known = {"grid": points}
    elif models == ["grid"]:
        raise AnalysisError(
            f"--law {source} holds {', '.join(known)} and a typed grid names no model: plan the "
            "grid and give --plan, or give points of one model."
        )
    refuse_unlike(grid, list(known), source)
    return {model: design_law.law_of(known[model], f"{model} of {source}") for model in models}


def _warnings(done: "Outlook", law: "TrueLaw", grid: "pd.DataFrame") -> list[Caution]:
    from analysis.formatting import count

    low, high = law.sizes
    params = grid.loc[grid["model"] == done.model, "params"]
    said = []
    if params.min() < low / 3 or params.max() > 3 * high:
        said.append(
            Caution(
                Code.BEYOND_THE_LAW,
                f"The law is {law.source}, fitted on {count(low)} to {count(high)} parameters, and "
                f"{done.model} has {count(params.min())} to {count(params.max())}: a guess, out "
                "there.",
                done.model,
            )
        )
    if done.true_exponent is not None and done.exponent is not None and done.interval is not None:
        bias = done.exponent - done.true_exponent
        if abs(bias) > 0.5 * (done.interval[1] - done.interval[0]):
            said.append(
                Caution(
                    Code.BIASED_PARABOLAS,
                    f"{done.model}: the parabolas are off by {bias:+.3f} whatever the noise, "
                    "more than "
                    "half of the interval: sizes lie far from the minimum, or only on one side "
                    "of it. `isoflop` takes this off where approach 3 meets the points.",
                    done.model,
                )
            )
    return said


def _json(done: "Outlook", law: "TrueLaw", noise: float) -> dict[str, Any]:
    return {
        **vars(done),
        "budgets": [vars(budget) for budget in done.budgets],
        "noise": noise,
        "law": vars(law),
    }


def _print(done: "Outlook", law: "TrueLaw", noise: float, simulations: int) -> None:
    from analysis.formatting import compute, count, plural

    hours = f", {done.hours:.3g} {done.unit} from scratch" if done.hours is not None else ""
    typer.echo(f"{done.model}: {plural(done.runs, 'run')}{hours}")
    typer.echo(f"law: {law.source}; noise {noise:.4g} nats per token; {simulations} simulated")
    for budget in done.budgets:
        place = "inside" if budget.inside else "OUTSIDE of"
        typer.echo(
            f"  {compute(budget.budget)}: best size {count(budget.optimum)}, {place} the "
            f"{plural(budget.sizes, 'size')}; no minimum in {budget.risk:.0%} of studies (smallest "
            f"{budget.smallest_risk:.0%}, largest {budget.largest_risk:.0%})"
        )
    if done.exponent is None or done.interval is None:
        typer.echo(f"  approach 2: no exponent in {done.no_exponent:.0%} of the studies")
    else:
        low, high = done.interval
        true = "" if done.true_exponent is None else f", true {done.true_exponent:.3f}"
        lost = f", none in {done.no_exponent:.0%}" if done.no_exponent else ""
        typer.echo(
            f"  approach 2: a {done.exponent:.3f} expected in {low:.3f} to {high:.3f} "
            f"(+-{0.5 * (high - low):.3f}){true}{lost}"
        )
    if done.law_half_width is None:
        typer.echo("  approach 3: these runs cannot identify the five parameters of the law")
    else:
        half = done.law_half_width
        typer.echo(f"  approach 3: a {done.law_exponent:.3f} +-{half:.3f} at best")
