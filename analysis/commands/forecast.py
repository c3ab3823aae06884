"""`python -m analysis forecast POINTS --at ...`: numbers written down before the runs."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands import options
from analysis.commands.talk import one_sentence, print_json, print_warnings
from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.forecast.predict import Asked, Best, Forecast, Gap, Run
    from analysis.points.table import PointSet

EPILOG = """
[bold]Examples[/bold]

What two models will reach at the next budget, before they are launched:
[cyan]python -m analysis forecast studies/first --at 'budget=1.65e19 model=mor,vanilla'[/cyan]

Single runs as well, by the size's name or its parameters:
[cyan]python -m analysis forecast studies/first --at 'budget=1.65e19 model=mor size=360m params=5e8'[/cyan]

When they have run: [cyan]python -m analysis score studies/first[/cyan]

--json holds predictions (model, budget, loss, interval, params, params_interval, how), gaps, runs,
level, points, file and warnings.

Exit codes: 0 printed (warnings included), 2 the points or an option cannot be used.
"""  # noqa: E501

At = Annotated[
    list[str],
    typer.Option(
        "--at",
        metavar="SETTINGS",
        help="What to forecast: budget=... with model=, size= or params= where wanted, values "
        "separated by commas; best=no for the single runs alone. May be given several times.",
        show_default=False,
    ),
]
Level = Annotated[
    float, typer.Option(metavar="SHARE", help="Share of the future that an interval is to hold.")
]
Baseline = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="The model that gaps are measured from. Default: vanilla, or the first of the models.",
        show_default=False,
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Where the forecast is written. Default: forecasts/ in the study's folder; for points "
        "from elsewhere it is written only with this.",
        show_default=False,
    ),
]
KEYS = ("budget", "model", "size", "params", "best")


@options.flat
def command(
    chosen: options.ChosenInAnyUnit,
    resampling: options.Resampling,
    at: At,
    level: Level = 0.9,
    baseline: Baseline = None,
    as_json: options.AsJson = False,
    out: Folder = None,
) -> None:
    """Predict best losses, best sizes, gaps and single runs at budgets that were not trained yet.

    The interval holds the uncertainty of the fit, of the choice of law where the points do not make
    it, and the noise of what will be measured. A study's forecasts are kept in its folder with
    digests of the points, and `score` reads them when the runs have ended.
    """
    with one_sentence():
        from analysis.forecast import record
        from analysis.forecast.predict import predict
        from analysis.points.series import ordered
        from analysis.points.table import curve_of

        asked = [parse_at(text) for text in at]
        if not 0 < level < 1:
            raise AnalysisError(
                f"--level {level:g} is not between 0 and 1: type a number such as 0.9."
            )
        found = chosen.load(names=("trunk",))
        models = ordered(sorted(set(curve_of(found.table))))
        if baseline is not None and baseline not in models:
            raise AnalysisError(
                f"--baseline {baseline} is not among the models: {', '.join(models)}."
            )
        done = predict(
            found.table,
            asked,
            level=level,
            baseline=baseline or models[0],
            resamples=resampling.bootstrap,
            seed=resampling.seed,
        )
        settings = {"at": at, "bootstrap": resampling.bootstrap, "seed": resampling.seed}
        content = record.content_of(done, found, settings)
        folder = out or (found.study_folder / record.FOLDER if found.study_folder else None)
        file = record.write(content, folder) if folder else None
    if as_json:
        warnings = [*found.warnings, *done.warnings]
        print_json({**content, "warnings": warnings, "file": str(file) if file else None})
        return
    _print(done, found)
    print_warnings([*found.warnings, *done.warnings])
    typer.echo(f"\nwritten: {file}" if file else "\nnot written: name a folder with --out")


def parse_at(text: str) -> "Asked":
    """`budget=1e19,2e19 model=mor size=360m`. Raises AnalysisError for anything else."""
    from analysis.forecast.predict import Asked

    found: dict[str, tuple[str, ...]] = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise AnalysisError(f"--at {text!r} has a quote that does not close.") from error
    for word in words:
        name, _, values = word.partition("=")
        if name not in KEYS or not values:
            raise AnalysisError(
                f"--at holds {word!r}: write {', '.join(f'{key}=...' for key in KEYS)}, as in "
                "--at 'budget=1.65e19 model=mor,vanilla'."
            )
        if name in found:
            raise AnalysisError(f"--at names {name} twice: separate its values by commas.")
        found[name] = tuple(value.strip() for value in values.split(",") if value.strip())
    if not found.get("budget"):
        raise AnalysisError(f"--at {text!r} names no budget: add budget=<FLOPs>.")
    asked = Asked(
        _numbers("budget", found["budget"]),
        found.get("model", ()),
        found.get("size", ()),
        _numbers("params", found.get("params", ())),
        best=_yes("best", found.get("best", ("yes",))),
    )
    if not (asked.best or asked.sizes or asked.params):
        raise AnalysisError(f"--at {text!r} asks for nothing: add size= or params= to best=no.")
    return asked


def _yes(name: str, values: tuple[str, ...]) -> bool:
    if values not in (("yes",), ("no",)):
        raise AnalysisError(f"--at names {name}={','.join(values)}: type {name}=yes or {name}=no.")
    return values == ("yes",)


def _numbers(name: str, values: tuple[str, ...]) -> tuple[float, ...]:
    from analysis.points.numbers import number

    read = [number(value, ".", name == "params") for value in values]
    for value, at in zip(values, read, strict=True):
        if not 0 < at < float("inf"):
            raise AnalysisError(f"--at names {name}={value}: type a number above zero, as 1.65e19.")
    return tuple(read)


def _print(done: "Forecast", found: "PointSet") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from analysis.compare import verdict

    typer.echo(f"{len(found.table)} points from {found.source}; {done.level:.0%} intervals")
    width = None if Console().is_terminal else 120
    console = Console(width=width, markup=False, emoji=False)
    tables: list[tuple[str, tuple[str, ...], list[list[str]]]] = [
        (
            f"Best: {verdict.loss_label(found).lower()}",
            ("model", "budget", "loss", "N_opt", "by"),
            [_best(row) for row in done.best],
        ),
        ("Gap", ("model", "against", "budget", "loss less the baseline's"),
         [_gap(row) for row in done.gaps]),
        ("Runs", ("model", "size", "budget", "loss", "by"), [_run(row) for row in done.runs]),
    ]  # fmt: skip
    for title, columns, rows in tables:
        if rows:
            shown = Table(*columns, box=box.SIMPLE_HEAD, title=f"\n{title}", title_justify="left")
            for row in rows:
                shown.add_row(*row)
            console.print(shown, highlight=False)


def _best(row: "Best") -> list[str]:
    from analysis.formatting import compute, count

    sizes = row.params_interval
    told = f" [{count(sizes[0])}, {count(sizes[1])}]" if sizes else ""
    loss = f"{row.loss:.4f}{_ends(row.interval, '.4f')}"
    return [row.model, compute(row.budget), loss, f"{count(row.params)}{told}", row.how]


def _gap(row: "Gap") -> list[str]:
    from analysis.formatting import compute

    gap = f"{row.gap:+.4f}{_ends(row.interval, '+.4f')}"
    return [row.model, row.baseline, compute(row.budget), gap]


def _run(row: "Run") -> list[str]:
    from analysis.formatting import compute, count

    size = f"{row.size} ({count(row.params)})" if row.size else count(row.params)
    loss = f"{row.loss:.4f}{_ends(row.interval, '.4f')}"
    return [row.model, size, compute(row.budget), loss, row.how]


def _ends(ends: tuple[float, float] | None, form: str) -> str:
    return f" [{ends[0]:{form}}, {ends[1]:{form}}]" if ends else " (no interval)"
