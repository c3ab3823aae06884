"""Scores as lines of text."""

from __future__ import annotations

from ledger.evaluation import Evaluation
from mor.evaluate.task_sets import BITS

SHOWN = ("acc", "acc_norm", "acc_bytes", "exact_match", "perplexity", "nll", "bpb")
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
    for name in SHOWN:
        if name in each:
            error = each.get(f"{name}_stderr")
            beside = "" if error is None else f" ± {error:.3f}"
            said.append(f"{name} {each[name]:.4g}{beside}")
    return "  ".join(said)
