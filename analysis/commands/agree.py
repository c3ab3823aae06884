"""`python -m analysis agree POINTS`: approaches, conventions and counts side by side."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import typer

from analysis.cautions import Caution, Code
from analysis.commands import options
from analysis.commands.talk import one_sentence, print_json, print_warnings

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.compare.agree import Answer, Case, Conclusion
    from analysis.points.table import PointSet
    from analysis.report.fits import Exponent

EPILOG = """
[bold]Examples[/bold]

A study under three FLOP conventions, with and without embeddings:
[cyan]python -m analysis agree studies/first[/cyan]

Points from elsewhere have one convention and one count; the approaches are still compared:
[cyan]python -m analysis agree points.csv --json[/cyan]

Exit codes: 0 compared (warnings included), 2 the points or an option cannot be used.
"""


PIPED_WIDTH = 140  # columns where no terminal window sets the width


@options.flat
def command(
    points: options.Points,
    resampling: options.Resampling,
    as_json: options.AsJson = False,
    columns: options.Columns = None,
    study: options.StudyName = None,
    loss: options.Loss = "causal",
    allow_mixed: options.AllowMixed = False,
) -> None:
    """Say which conclusions survive: three approaches, FLOP conventions, parameter counts.

    Exponents by approach 1, 2 and 3 and how far they are apart; then who leads and whose exponent
    is larger, under every convention that the runs counted (paper, exact, 6nd) and with embeddings
    among the parameters or without.
    """
    with one_sentence():
        from analysis.compare import agree

        found = _load(options.Chosen(points, columns, study, loss, allow_mixed=allow_mixed))
        cases = [
            agree.make_case(
                held.table,
                convention,
                count,
                spent,
                resamples=resampling.bootstrap,
                seed=resampling.seed,
            )
            for count, held in found.items()
            for convention, spent in _conventions(held).items()
        ]
        concluded = agree.conclusions(cases)
    first = next(iter(found.values()))
    warnings = [*first.warnings, *_said_of(cases)]
    if as_json:
        content = {
            "cases": [_json(case) for case in cases],
            "conclusions": [asdict(conclusion) for conclusion in concluded],
        }
        print_json({**content, "source": first.source, "warnings": warnings})
        return
    from rich.console import Console

    typer.echo(f"{len(first.table)} points from {first.source}")
    print_warnings(warnings)
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH, markup=False, emoji=False)
    _print_headline(cases)
    _print_exponents(console, cases)
    _print_conclusions(console, concluded, cases)


def _load(chosen: options.Chosen) -> "dict[str, PointSet]":
    """The points under each count of parameters; a CSV has one."""
    first = chosen.load(names=("trunk",))
    if first.params == "as given":
        return {first.params: first}
    return {
        first.params: first,
        "total": replace(chosen, params="total").load(names=("trunk",)),
    }


def _conventions(points: "PointSet") -> dict[str, dict[str, float] | None]:
    """FLOPs by run id under each convention that every run counted; None for the points' own."""
    from analysis.report import records

    own = points.convention or "as given"
    known = records.of_points(points.table)
    conventions: dict[str, dict[str, float] | None] = {own: None}
    for name in records.CONVENTIONS:
        spent = {run_id: record.flops.get(name) for run_id, record in known.items()}
        counted = {run_id: flops for run_id, flops in spent.items() if flops}
        if name != own and len(counted) == len(points.table):
            conventions[name] = counted
    return conventions


def _said_of(cases: "list[Case]") -> list[Caution]:
    said = [
        Caution(Code.NOT_IDENTIFIED, f"{exponent.model}, approach 3: {warning.text}")
        for exponent in cases[0].exponents
        for warning in _not_identified(exponent)
    ]
    for case in cases:
        if case.left_out:
            said.append(
                Caution(
                    Code.LEFT_OUT_OF_CASE,
                    f"Under {case.convention}, {case.left_out} points with one budget a size were "
                    "left out.",
                )
            )
        if case.moved > 1.25 and case.params != "total":
            said.append(
                Caution(
                    Code.MOVED_FAR,
                    f"Under {case.convention} runs of one budget spent up to {case.moved:.2f} "
                    "times "
                    "apart from their mean; their losses were moved that far along their curves.",
                )
            )
    return said


def _not_identified(found: "Exponent") -> list[Caution]:
    return [warning for warning in found.warnings if warning.code is Code.NOT_IDENTIFIED]


def _json(case: "Case") -> dict[str, Any]:
    from analysis.compare.agree import spreads

    return {
        "convention": case.convention,
        "params": case.params,
        "moved": case.moved,
        "left_out": case.left_out,
        "exponents": [vars(exponent) for exponent in case.exponents],
        "spreads": [asdict(spread) for spread in spreads(case)],
    }


def _print_headline(cases: "list[Case]") -> None:
    from analysis.compare.agree import spreads

    first, *others = cases
    for spread in spreads(first):
        told = "fewer than two approaches have an exponent"
        if spread.exponent is not None:
            told = f"the approaches differ by {spread.exponent:.3f} in the exponent"
        if spread.n_opt is not None:
            told += f" and by a factor of {spread.n_opt:.3g} in N_opt at the largest budget"
        every = [
            found.exponent
            for case in others
            for found in spreads(case)
            if found.model == spread.model and found.exponent is not None
        ]
        if every:
            told += f"; in the other cases by {min(every):.3f} to {max(every):.3f} in the exponent"
        typer.echo(f"{spread.model}: {told}.")


def _print_exponents(console: "Console", cases: "list[Case]") -> None:
    from rich import box
    from rich.table import Table

    from analysis.formatting import count

    table = Table(box=box.SIMPLE_HEAD, title="\nN_opt ~ C^a, 95 % interval", title_justify="left")
    for column in ("model", "case", "approach 1", "approach 2", "approach 3", "N_opt 1, 2, 3"):
        table.add_column(column, justify="left" if column in ("model", "case") else "right")
    for model in dict.fromkeys(e.model for case in cases for e in case.exponents):
        for case in cases:
            rows = [e for e in case.exponents if e.model == model]
            cells = [_exponent(e) for e in rows]
            sizes = ", ".join("-" if e.n_opt is None else count(e.n_opt) for e in rows)
            table.add_row(model, case.name, *cells, sizes)
    console.print(table, highlight=False)


def _exponent(found: "Exponent") -> str:
    value, ends = found.a, found.a_interval
    if value is None:
        return "not identified" if _not_identified(found) else "-"
    return f"{value:.3f} " + (f"[{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


def _print_conclusions(
    console: "Console", concluded: "list[Conclusion]", cases: "list[Case]"
) -> None:
    from rich import box
    from rich.table import Table

    title = "\nWhich conclusions survive (in brackets: not decided at 95 %, all questions together)"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for column in ("survives", "question", *(case.name.replace(", ", "\n") for case in cases)):
        table.add_column(column)
    for conclusion in concluded:
        answers = [_answer(conclusion.answers[case.name]) for case in cases]
        told = f": {conclusion.answer}" if conclusion.answer else ""
        table.add_row(f"{conclusion.survives}{told}", conclusion.question, *answers)
    console.print(table, highlight=False)


def _answer(answer: "Answer") -> str:
    if answer.leans is None:
        return "-"
    return answer.leans if answer.decided else f"({answer.leans})"
