"""What is kept of the harness's results: its measures by task, and beside them the negative
log-likelihood of the right answer, which separates small models where accuracy is chance.

- `nll`: nats of the right answer, mean over the documents;
- `bpb`: bits of all right answers over their bytes of UTF-8, the space in front included.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from mor.evaluate.task_sets import ACCURACY, BENCHMARKS, TaskSet

if TYPE_CHECKING:
    from lm_eval.api.task import Task

Measures = dict[str, float]


def measures(results: dict[str, Any], tasks: dict[str, Task]) -> dict[str, Measures]:
    """Every number of each task: the harness's, `n`, and where an answer has one `nll`, `bpb`."""
    found = {}
    for name, task in tasks.items():
        samples = results["samples"][name]
        found[name] = {"n": float(len({sample["doc_id"] for sample in samples}))}
        found[name] |= _of_harness(results["results"][name]) | _standard_errors(samples)
        answers = [answer for sample in samples if (answer := right_answer(task, sample))]
        if answers:
            nats, count = -sum(ll for ll, _ in answers), sum(size for _, size in answers)
            found[name] |= {"nll": nats / len(answers), "bpb": nats / count / math.log(2)}
    return found


def documents_of(results: dict[str, Any]) -> str:
    """A fingerprint of all documents with their prompts and targets."""
    asked = [
        [name, sample["doc_hash"], sample["prompt_hash"], sample["target_hash"]]
        for name, samples in sorted(results["samples"].items())
        for sample in samples
    ]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]


def _of_harness(results: dict[str, Any]) -> Measures:
    """The harness's measures by their own names; a filter other than `none` follows after `/`."""
    found: Measures = {}
    for key, value in results.items():
        metric, _, filtered = key.partition(",")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if filtered and number and math.isfinite(value):
            found[metric if filtered == "none" else f"{metric}/{filtered}"] = float(value)
    return found


def _standard_errors(samples: list[dict[str, Any]]) -> Measures:
    """Of the means of accuracies."""
    found: Measures = {}
    for metric in ("acc", "acc_norm", "acc_bytes", "exact_match"):
        values = [float(sample[metric]) for sample in samples if metric in sample]
        if len(values) > 1:
            found[f"{metric}_stderr"] = statistics.stdev(values) / math.sqrt(len(values))
    return found


def right_answer(task: Task, sample: dict[str, Any]) -> tuple[float, int] | None:
    """Log-likelihood and bytes of a document's right answer; None where nothing is scored."""
    kind, requests = task.get_config("output_type"), sample["arguments"]
    if kind == "loglikelihood":
        return sample["filtered_resps"][0][0], len(requests[0][1].encode())
    if kind == "loglikelihood_rolling":
        return sample["resps"][0][0], len(requests[0][0].encode())
    if kind != "multiple_choice":
        return None
    options = [
        (response[0], len(request[1].encode()))
        for response, request in zip(sample["filtered_resps"], requests, strict=False)
    ]
    several_contexts = getattr(task, "multiple_input", 0)
    gold = task.doc_to_text(sample["doc"]) if several_contexts else sample["target"]
    choices = task.doc_to_choice(sample["doc"])
    places = [_place(g, choices) for g in (gold if isinstance(gold, list) else [gold])]
    return max(options[place] for place in places)


def _place(gold: Any, choices: list[str]) -> int:
    return choices.index(gold) if isinstance(gold, str) else int(gold)


def scores(tasks: TaskSet, found: dict[str, Measures]) -> Measures:
    """What a task set says of a model, by benchmark (a preset) or task, and `avg`."""
    if tasks.path is not None or tasks.name == "corpus":
        by_name = {name: each["bpb"] for name, each in found.items() if "bpb" in each}
    else:
        by_name = {name: _score(name, tasks.unit, found) for name in BENCHMARKS}
    if not by_name:
        return {}
    return {**by_name, "avg": sum(by_name.values()) / len(by_name)}


def _score(name: str, unit: str, found: dict[str, Measures]) -> float:
    benchmark = BENCHMARKS[name]
    names = benchmark.files.values()
    parts = [each for task, each in found.items() if any(fnmatch(task, n) for n in names)]
    metric, factor = (benchmark.metric, 100.0) if unit == ACCURACY else ("bpb", 1.0)
    weights = [part["n"] if benchmark.pooled else 1.0 for part in parts]
    total = sum(weight * part[metric] for weight, part in zip(weights, parts, strict=True))
    return factor * total / sum(weights)
