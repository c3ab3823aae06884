"""The harness's tasks of documents of one's own (`mor.evaluate.documents`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mor.evaluate.documents import Row, read_documents


@dataclass(frozen=True)
class Rows:
    """The documents of a task, as the harness asks for them."""

    rows: list[Row]

    def __call__(self, **metadata: Any) -> Any:
        from datasets import Dataset, DatasetDict

        return DatasetDict({"test": Dataset.from_list(self.rows)})


def column(name: str) -> Callable[[Row], Any]:
    """A document's value as it stands: never read as a template."""

    def value(document: Row) -> Any:
        return document[name]

    return value


def task_config(name: str, kind: str, rows: list[Row]) -> dict[str, Any]:
    """A task of the harness from documents of one of the KINDS."""
    common = {
        "task": name,
        "custom_dataset": Rows(rows),
        "test_split": "test",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metadata": {"version": 1},
    }
    if kind == "choice":
        own = {
            "output_type": "multiple_choice",
            "doc_to_text": column("context"),
            "doc_to_choice": column("choices"),
            "doc_to_target": column("answer"),
            "metric_list": means("acc", "acc_norm", "acc_bytes"),
        }
    elif kind == "target":
        own = {
            "output_type": "loglikelihood",
            "doc_to_text": column("context"),
            "doc_to_target": column("target"),
            "metric_list": means("acc"),
        }
    elif kind == "completion":
        own = {
            "output_type": "generate_until",
            "doc_to_text": column("context"),
            "doc_to_target": column("completion"),
            "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 128},
            "metric_list": means("exact_match"),
        }
    else:
        own = {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": column("text"),
            "metric_list": [{"metric": name} for name in ("byte_perplexity", "bits_per_byte")],
        }
    return {**common, **own}


def means(*metrics: str) -> list[dict[str, Any]]:
    return [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in metrics]


def read_jsonl(path: Path) -> dict[str, Any]:
    """The task of a .jsonl file. Raises ConfigError that names the line."""
    found = read_documents(path)
    return task_config(path.stem, found.kind, found.rows)
