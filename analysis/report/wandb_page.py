"""The report as a W&B page: the same sentences and tables, with live panels over the runs there.

`content` is what `analysis.report.page.gather` gives. W&B's panels read the summary that a run
tracked, which is its result; the fits stand as text and tables, since W&B fits nothing itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.compare import verdict
from analysis.points.wandb_client import connect, one_reason
from ledger.result import LOSS_KEYS

LOSS = LOSS_KEYS["causal"]
ROWS = 200  # of the table of runs; a longer one is cut, and says so


@dataclass(frozen=True)
class Place:
    """Where the page goes, and which of the project's runs its panels show (all without group)."""

    entity: str
    project: str
    group: str | None = None


def publish(content: Mapping[str, Any], place: Place, title: str) -> str:
    """Save the page on the server and return its address.

    Raises AnalysisError without a key, or where the server does not take it.
    """
    connect()
    with one_reason():
        report = build(content, place, title)
        report.save()
        return str(report.url)


def build(content: Mapping[str, Any], place: Place, title: str) -> Any:
    """The page as wandb-workspaces has it, not saved yet."""
    import wandb_workspaces.reports.v2 as wr

    said = content["said"]
    blocks: list[Any] = [
        wr.TableOfContents(),
        wr.H2("In short"),
        wr.MarkdownBlock(
            _bullets([said.refusal or f"**{_escaped(said.summary)}**", *_verdicts(content)])
        ),
    ]
    if content["study"]:
        blocks += [wr.H2("The study"), wr.MarkdownBlock(_study(content["study"]))]
    blocks += [wr.H2("Who wins at equal compute"), _panels(wr, place)]
    for at in said.budgets:
        blocks += [wr.H3(f"At {at.budget} FLOPs"), wr.P(at.headline)]
        blocks += [wr.MarkdownBlock(_bullets(map(_escaped, at.lines)))]
    if said.limits:
        blocks += [wr.H3("What this does not show")]
        blocks += [wr.MarkdownBlock(_bullets(map(_escaped, said.limits)))]
    blocks += [wr.H2("Fits"), wr.MarkdownBlock(_exponents(content["exponents"]))]
    for name, frontier in content["frontiers"]:
        minima = [verdict.minimum_cells(minimum) for minimum in frontier.minima]
        heads = ("Budget", "N_opt", "D_opt", "Loss", "Minimum", "Points")
        blocks += [wr.H3(name), wr.MarkdownBlock(_table(heads, minima))]
    blocks += [wr.H2("Runs"), wr.MarkdownBlock(_runs(content["runs"]))]
    if content["left_out"]:
        blocks += [wr.H2("Left out, and why")]
        blocks += [
            wr.MarkdownBlock(f"**{group}**\n\n{_bullets(map(_escaped, reasons))}")
            for group, reasons in content["left_out"]
        ]
    facts = [(name, value) for name, value in content["provenance"].items()]
    blocks += [wr.H2("Provenance"), wr.MarkdownBlock(_table(("", ""), facts))]
    return wr.Report(
        project=place.project,
        entity=place.entity,
        title=title,
        description=content["summary"],
        width="fluid",
        blocks=blocks,
    )


def _panels(wr: Any, place: Place) -> Any:
    chosen = f"Group = '{place.group}'" if place.group else ""
    runs = wr.Runset(entity=place.entity, project=place.project, name="Runs", filters=chosen)
    loss = wr.SummaryMetric(f"loss.{LOSS}")

    def against(title: str, metric: str) -> Any:
        return wr.ScatterPlot(title=title, x=wr.SummaryMetric(metric), y=loss, log_x=True)

    return wr.PanelGrid(
        runsets=[runs],
        panels=[
            against("Loss against parameters", "n_params_nonembedding"),
            against("Loss against FLOPs spent", "flops.spent"),
            wr.LinePlot(title="Training loss", x="spent", y=["loss"], log_x=True),
        ],
    )


def _verdicts(content: Mapping[str, Any]) -> list[str]:
    return [
        f"**{_escaped(name)}.** {verdict.verdict(found)}" for name, found in content["frontiers"]
    ]


def _study(study: Any) -> str:
    facts = [("Asked", study.asked), ("When", study.when), ("Where", study.where)]
    states = ", ".join(f"{number} {state}" for state, number in study.states.items())
    text = _table(("", ""), [*facts, ("State", states)])
    if not study.spent:
        return text
    heads = ("Model", "Runs ended", "Planned FLOPs", "Spent FLOPs", f"Planned {study.unit}",
             f"Spent {study.unit}")  # fmt: skip
    rows = [
        (
            line.name,
            f"{line.done} of {line.runs}",
            f"{line.planned_flops:.3e}",
            f"{line.spent_flops:.3e}",
            f"{line.planned_hours:.3g}",
            "not measured" if line.spent_hours is None else f"{line.spent_hours:.3g}",
        )
        for line in study.spent
    ]
    return f"{text}\n\n{_table(heads, rows)}"


def _exponents(found: Iterable[Any]) -> str:
    rows = []
    for e in found:
        if e.a is None:
            rows.append((e.model, e.name, f"none: {e.reason}", ""))
        else:
            rows.append(
                (e.model, e.name, _interval(e.a, e.a_interval), _interval(e.b, e.b_interval))
            )
    return _table(("Model", "Approach", "a: N_opt ~ C^a", "b: D_opt ~ C^b"), rows)


def _interval(value: float, ends: tuple[float, float] | None) -> str:
    return f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else f"{value:.3f}, no interval"


def _runs(runs: Sequence[Mapping[str, Any]]) -> str:
    keys = ("run", "loss", "budget", "params", "tokens", "exact", "seed", "size", "model")
    heads = ("Run", "Loss", "Budget", "Params", "Tokens", "Spent, exact", "Seed", "Size", "Model")
    text = _table(heads, [[run[key] for key in keys] for run in runs[:ROWS]])
    return text if len(runs) <= ROWS else f"{text}\n\n{len(runs) - ROWS} more are in the project."


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [[_escaped(str(cell)) for cell in line] for line in (heads, *rows)]
    cells.insert(1, ["---"] * len(heads))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _escaped(text: str) -> str:
    """Text that Markdown shows as it stands."""
    for mark in "\\`*_|<>":
        text = text.replace(mark, f"\\{mark}")
    return text
