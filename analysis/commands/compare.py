"""`python -m analysis compare POINTS`: architectures at equal compute."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands import options
from analysis.commands.talk import one_sentence, print_drawn, print_json, print_warnings
from ledger.result import BYTE_KEYS

if TYPE_CHECKING:
    from analysis.compare.device_time import AtEqualTime
    from analysis.compare.equal_compute import Compared, Comparison, Plateau
    from analysis.compare.mistuning import Tuning
    from analysis.compare.multiplier import Multiplier
    from analysis.compare.peak_memory import AtEqualMemory

EPILOG = """
[bold]Examples[/bold]

Every architecture of a study against vanilla:
[cyan]python -m analysis compare studies/first[/cyan]

Against another one, as JSON:
[cyan]python -m analysis compare runs --baseline recursive --json[/cyan]

Exit codes: 0 compared (warnings included), 2 the points or an option cannot be used.
"""

Baseline = Annotated[
    str, typer.Option(metavar="MODEL", help="The model that the others are measured in.")
]


@options.flat
def command(
    chosen: options.ChosenInAnyUnit,
    resampling: options.Resampling,
    as_json: options.AsJson = False,
    out: options.Out = None,
    baseline: Baseline = "vanilla",
    recipe: options.RecipeFile = None,
) -> None:
    """Compare architectures at equal compute: loss gap and effective compute multiplier.

    "mor at 5e18 equals vanilla at k x 5e18", k from the best loss of each budget (approach 2), with
    a 95 % interval; whether the gap is decided with all comparisons together (Holm); k by the laws
    of approach 3 and by pairs of one size, too; and for every minimum the sizes that are as good
    within one sigma. How much of a gap untuned learning rates and batches can explain is said, or
    *untuned* where no tune study says so.
    """
    with one_sentence():
        from analysis.compare import verdict
        from analysis.compare.device_time import at_equal_time
        from analysis.compare.equal_compute import compare
        from analysis.compare.mistuning import COLUMNS, tuning_of
        from analysis.compare.multiplier import apart, multipliers
        from analysis.compare.peak_memory import at_equal_memory
        from analysis.fits.isoflop import fit_isoflop
        from analysis.report import records

        found = chosen.load(names=("trunk", *COLUMNS))
        fitted = fit_isoflop(found.table, resamples=resampling.bootstrap, seed=resampling.seed)
        done = compare(fitted, baseline)
        asked = {"resamples": resampling.bootstrap, "seed": resampling.seed}
        others = multipliers(found.table, baseline, **asked)
        tuning = tuning_of(done, fitted, found.table, recipe, found.params)
        kept = records.of_points(found.table)
        timed = at_equal_time(done, fitted, found.table, records.speeds(kept))
        within = at_equal_memory(done, fitted, found.table, records.memories(kept))
        drawn = options.draw_into(out, lambda folder: _draw(done, folder, found.loss in BYTE_KEYS))
    differing = apart(done, others)
    warnings = [*found.warnings, *done.warnings, *differing, *tuning.warnings]
    print_drawn(drawn, as_json)
    if as_json:
        content = {
            "baseline": done.baseline,
            "comparisons": [
                {**vars(row), "mistuning": vars(tuning.of(row))} for row in done.comparisons
            ],
            "tuning": [one.as_json() for one in tuning.certificates],
            "multipliers": [vars(row) for row in others],
            "plateaus": [vars(row) for row in done.plateaus],
            "device_time": {**vars(timed), "rows": [vars(row) for row in timed.rows]},
            "peak_memory": {**vars(within), "rows": [vars(row) for row in within.rows]},
        }
        print_json({**content, "source": found.source, "warnings": warnings})
        return
    typer.echo(f"{len(found.table)} points from {found.source}, against {done.baseline}")
    typer.echo(f"{verdict.loss_label(found)}\n")
    _print(done, tuning, len(fitted.models[done.baseline].minima))
    _print_others(others, done.baseline)
    _print_costs(timed, within, done.baseline)
    print_warnings(warnings)


def _draw(done: "Compared", folder: Path, in_bytes: bool) -> list[Any]:
    from analysis.figures import effective_compute

    return [effective_compute.draw(done, folder, "effective_compute", in_bytes)]


def _print(done: "Compared", tuning: "Tuning", budgets: int) -> None:
    """`budgets`: of the baseline."""
    from analysis.compare.mistuning import words

    flat = f"{done.baseline} does not improve with compute there"
    none = flat if budgets > 1 else f"{done.baseline} has one budget"
    for row in done.comparisons:
        typer.echo(f"{_comparison(row, done.baseline, none)}; {words(tuning.of(row), row.gap)}")
    typer.echo("")
    for plateau in done.plateaus:
        typer.echo(_plateau(plateau))


def _print_others(rows: "tuple[Multiplier, ...]", baseline: str) -> None:
    from analysis.formatting import compute

    typer.echo(f"\nk against {baseline} in two more ways: laws (approach 3), pairs of one size")
    for row in rows:
        if row.multiplier is None:
            continue
        told = f"{row.multiplier:.3g}{_interval(row.interval, '.3g')}"
        count = f" of {row.pairs}" if row.pairs else ""
        typer.echo(f"{row.model} at {compute(row.budget)}, {row.by}{count}: {told}")
    for line in _without(rows):
        typer.echo(line)


def _without(rows: "tuple[Multiplier, ...]") -> list[str]:
    """Where there is none, once for each cause."""
    from analysis.formatting import compute, listing

    places: dict[tuple[str, str], dict[str, list[str]]] = {}  # by cause and model: budgets
    for row in rows:
        if row.multiplier is None:
            models = places.setdefault((row.by, row.reason), {})
            models.setdefault(row.model, []).append(compute(row.budget))
    told: dict[tuple[str, str], list[str]] = {}
    for (by, reason), models in places.items():
        each = [f"{model} ({listing(budgets)})" for model, budgets in models.items()]
        told.setdefault((reason, listing(each, 8)), []).append(by)
    return [
        f"none by {' or '.join(ways)} for {where}: {reason}"
        for (reason, where), ways in told.items()
    ]


def _print_costs(timed: "AtEqualTime", within: "AtEqualMemory", baseline: str) -> None:
    from analysis.compare import device_time, peak_memory

    for said in (
        [device_time.turned(timed), *device_time.lines(timed, baseline)],
        [peak_memory.turned(within), *peak_memory.lines(within, baseline)],
    ):
        if any(said):
            typer.echo("\n" + "\n".join(line for line in said if line))


def _comparison(row: "Comparison", baseline: str, none: str) -> str:
    """`none`: why there is no multiplier, where there is none."""
    from analysis.formatting import compute

    best = f"{'at most ' if row.loss_is_bound else ''}{row.loss:.4f}"
    base = f"{'at most ' if row.baseline_is_bound else ''}{row.baseline_loss:.4f}"
    gap = f"gap {row.gap:+.4f}{_interval(row.gap_interval, '+.4f')}, lowest measured "
    gap += f"{row.measured_gap:+.4f}"
    if row.adjusted_p is not None:
        gap += f", {'decided' if row.decided else 'not decided'} (p {row.adjusted_p:.2g}, Holm)"
    said = f"{row.model} at {compute(row.budget)}: loss {best} against {base}, {gap}; "
    if row.multiplier is None:
        return said + f"no multiplier: {none}"
    how = " (extrapolated)" if row.extrapolated else ""
    return said + (
        f"equals {baseline} at {row.multiplier:.3g}{_interval(row.multiplier_interval, '.3g')} "
        f"x {compute(row.budget)}{how}"
    )


def _interval(ends: tuple[float, float] | None, form: str) -> str:
    return f" [{ends[0]:{form}}, {ends[1]:{form}}]" if ends else " (no interval)"


def _plateau(row: "Plateau") -> str:
    from analysis.formatting import compute, count

    beyond = ", beyond the sizes tested" if row.reaches_beyond else ""
    return (
        f"{row.model} at {compute(row.budget)}: best size {count(row.params)}; {count(row.low)} to "
        f"{count(row.high)} are within one sigma ({row.sigma:.4f}) of it{beyond}"
    )
