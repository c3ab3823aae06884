"""Scores as lines of text."""

from __future__ import annotations

from ledger.evaluation import Evaluation
from mor.evaluate.task_sets import BITS

SHARES = ("acc", "acc_norm", "acc_bytes", "exact_match")
UNITS = {**dict.fromkeys(SHARES, " %"), "perplexity": "", "nll": " nats per answer", "bpb": ""}
TASKS_SHOWN = 20  # at most; MMLU alone has 57


def lines_of(found: Evaluation) -> list[str]:
    """A line of scores and one for each task with its measures."""
    lines = []
    if len(found.tasks) <= TASKS_SHOWN:
        width = max(map(len, found.tasks), default=0)
        lines = [f"{name:{width}}  {_measures(each)}" for name, each in found.tasks.items()]
    if found.scores:
        said = "  ".join(f"{name} {value:.4g}" for name, value in found.scores.items())
        lines.append(f"{found.run_id}, {found.task_set}, {found.unit}: {said}")
    left_out = [name for name, each in found.tasks.items() if "bpb" not in each]
    if found.unit == BITS and left_out:
        lines.append(f"no {BITS}, so not in the average: {', '.join(left_out)}")
    if found.mean_recursions is not None:
        lines.append(f"mean depth {found.mean_recursions:.3f} recursions per token")
    if found.cut:
        lines.append(f"{found.cut} requests were longer than the context of {found.context} tokens")
    return lines


def _measures(each: dict[str, float]) -> str:
    said = [f"{each['n']:5.0f} documents"]
    for name, unit in UNITS.items():
        if name in each:
            # Files keep the harness's shares of one; people and the paper's tables read percent.
            factor = 100.0 if name in SHARES else 1.0
            error = each.get(f"{name}_stderr")
            beside = "" if error is None else f" ± {factor * error:.{1 if name in SHARES else 3}f}"
            value = factor * each[name]
            shown = f"{value:.1f}" if name in SHARES else f"{value:.4g}"
            said.append(f"{name} {shown}{beside}{unit}")
    return "  ".join(said)
