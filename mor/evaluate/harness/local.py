"""Tasks of one's own: a .jsonl file with a document in each line, or a harness task's .yaml.

The keys of a file's first line say what kind of task it is; every line has the same ones.

    {"context": "...", "choices": [" a", " b"], "answer": 0}   which choice goes on (acc, acc_bytes)
    {"context": "...", "target": " word"}                      likelihood of a continuation (acc)
    {"context": "...", "completion": "..."}                    greedy, to the end of a line (exact)
    {"text": "..."}                                            bits per byte of a text

Nothing is put between a context and what follows it: a space belongs to the choice or target.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mor.config import ConfigError

Row = dict[str, Any]
KINDS: dict[str, dict[str, type]] = {
    "choice": {"context": str, "choices": list, "answer": int},
    "target": {"context": str, "target": str},
    "completion": {"context": str, "completion": str},
    "text": {"text": str},
}
NOT_EMPTY = ("choices", "target", "completion", "text")


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
    rows: list[Row] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # other line ends may stand in a text
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("tasks", path, f"cannot be read ({error})", "name a text file") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _wrong(path, number, f"not valid JSON ({error})") from None
        rows.append(row)
        kind = _kind(rows[0], path)
        _check(row, kind, path, number)
    if not rows:
        raise ConfigError("tasks", path, "holds no document", "write one in each line, as JSON")
    return task_config(path.stem, kind, [{key: row[key] for key in KINDS[kind]} for row in rows])


def _kind(row: Any, path: Path) -> str:
    given = set(row) if isinstance(row, dict) else set()
    for kind, columns in KINDS.items():
        if given >= columns.keys():
            return kind
    raise _wrong(path, 1, f"keys {', '.join(sorted(given)) or 'none'}")


def _check(row: Any, kind: str, path: Path, number: int) -> None:
    for key, wanted in KINDS[kind].items():
        value = row.get(key) if isinstance(row, dict) else None
        if type(value) is not wanted:
            raise _wrong(path, number, f"{key} is {json.dumps(value)[:60]}")
        if key in NOT_EMPTY and not value:
            raise _wrong(path, number, f"{key} is empty")
    if kind == "choice":
        choices, answer = row["choices"], row["answer"]
        if not all(isinstance(choice, str) and choice for choice in choices):
            raise _wrong(path, number, "choices holds a value that is not text, or an empty one")
        if not 0 <= answer < len(choices):
            raise _wrong(path, number, f"answer is {answer} of {len(choices)} choices")


def _wrong(path: Path, number: int, problem: str) -> ConfigError:
    kinds = "; ".join("{" + ", ".join(columns) + "}" for columns in KINDS.values())
    return ConfigError("tasks", path, f"line {number}: {problem}", f"write one of {kinds}")
