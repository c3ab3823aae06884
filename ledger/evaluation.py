"""`evaluations/<task set>.json`: what a finished run scores on a set of tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ledger.part import Part

EVALUATION_SCHEMA = 1
PAPER = "paper"  # the task set that fills the few-shot columns of the paper's tables


@dataclass(frozen=True, kw_only=True)
class Evaluation(Part):
    """Scores of one run on one task set. `extra` has where they come from: git commit, versions."""

    run_id: str = ""
    task_set: str = ""
    fingerprint: str = ""  # of the tasks, as they were then
    documents: str = ""  # fingerprint of what was asked: the same for runs that can be compared
    limit: int | None = None  # documents per task; None: all
    shots: int | None = None  # examples in front of each document; None: what each task says
    unit: str = ""  # of the scores: "accuracy, %" or "bits per byte"
    scores: dict[str, float] = field(default_factory=dict)  # by benchmark, and `avg`
    tasks: dict[str, dict[str, float]] = field(default_factory=dict)  # measures by harness task
    harness: dict[str, Any] = field(default_factory=dict)  # name, version, task versions, seeds
    weights: str = ""  # fingerprint of the checkpoint that was scored
    routing: str = "causal"
    mean_recursions: float | None = None  # per scored token, of a routed model
    context: int | None = None  # tokens; longer documents were cut on the left
    cut: int = 0  # requests that were cut
    seconds: float | None = None
    device: str = ""
    finished: str | None = None  # ISO 8601, UTC
