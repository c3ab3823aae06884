"""Ids of runs, trunks and trunk segments: how they are composed, and what they say.

A run is `<model>-<size>-<budget>-<8 hex>`, a trunk `<model>-<size>-trunk-<8 hex>`, a segment of a
trunk `<trunk>@<FLOPs at its end>`, an evaluation `<run>@evaluate-<task set>`, the
preparation of a corpus `data-<name>-<fingerprint>@<training tokens>`. What the hash covers is
decided by `mor.identity`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

TRUNK = "trunk"


def digest(fields: dict[str, Any]) -> str:
    """Eight hex digits over the canonical JSON of some fields."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def budget_name(budget: float) -> str:
    """A budget as people write it: 5e18, 1.65e19, 2.5e11."""
    mantissa, exponent = f"{budget:.6e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def run_name(model: str, size: str, budget: float, fields: dict[str, Any]) -> str:
    """The id of a run with these identity fields."""
    return f"{model}-{size}-{budget_name(budget)}-{digest(fields)}"


def trunk_name(model: str, size: str, fields: dict[str, Any]) -> str:
    """The id of a trunk with these identity fields."""
    return f"{model}-{size}-{TRUNK}-{digest(fields)}"


def is_trunk(run_id: str) -> bool:
    """Whether an id is that of a trunk: the shared first part of several runs."""
    return f"-{TRUNK}-" in run_id


def segment_name(trunk_id: str, target: float) -> str:
    """The id of the segment of a trunk that ends at `target` FLOPs."""
    return f"{trunk_id}@{budget_name(target)}"


def evaluation_name(run_id: str, task_set: str) -> str:
    """The id of the evaluation of a run on a task set."""
    return f"{run_id}@evaluate-{task_set}"


def data_name(corpus: str, fingerprint: str, tokens: int) -> str:
    """The id of the preparation of a corpus up to so many training tokens."""
    return f"data-{corpus}-{fingerprint}@{tokens}"


def folder_of(task_id: str) -> str:
    """The folder that a task writes: that of a segment's trunk, of an evaluation's run, of a
    corpus, or of the run itself."""
    return task_id.split("@")[0]
