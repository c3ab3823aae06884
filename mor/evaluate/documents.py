"""Tasks of one's own as files: a .jsonl file with a document in each line, or a harness task's
.yaml. Read and checked here for planning, with neither torch nor the harness.

The keys of a file's first line say what kind of task it is; every line has the same ones.

    {"context": "...", "choices": [" a", " b"], "answer": 0}   which choice goes on (acc, acc_bytes)
    {"context": "...", "target": " word"}                      likelihood of a continuation (acc)
    {"context": "...", "completion": "..."}                    greedy, to the end of a line (exact)
    {"text": "..."}                                            bits per byte of a text

Nothing is put between a context and what follows it: a space belongs to the choice or target.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mor.config import ConfigError

SUFFIXES = (".jsonl", ".yaml")
Row = dict[str, Any]
KINDS: dict[str, dict[str, type]] = {
    "choice": {"context": str, "choices": list, "answer": int},
    "target": {"context": str, "target": str},
    "completion": {"context": str, "completion": str},
    "text": {"text": str},
}
NOT_EMPTY = ("choices", "target", "completion", "text")


@dataclass(frozen=True)
class Documents:
    """The documents of a .jsonl file, all of one of the KINDS."""

    kind: str
    rows: list[Row]


def refuse_wrong(files: Iterable[Path], setting: str) -> None:
    """Raises ConfigError that names the first file, and the line, that is no task, or that holds
    one of another file."""
    found = set()
    for file in files:
        if file.suffix == ".jsonl":
            name: str | None = file.stem
            read_documents(file, setting)
        else:
            name = _task_name(file, setting)
        if name in found:
            raise task_twice(name, file.parent, setting)
        found |= {name} - {None}


def read_documents(path: Path, setting: str = "tasks") -> Documents:
    """A .jsonl file, whole. Raises ConfigError that names the line."""
    rows: list[Row] = []
    kind = ""
    for number, line in enumerate(_text(path, setting).split("\n"), start=1):
        if not line.strip():  # other line ends may stand in a text
            continue
        try:
            row = _parsed(line)
            if not rows:
                kind, first = _kind(row), number
            _check(row, kind, first)
        except _Wrong as wrong:
            raise ConfigError(setting, path, f"line {number}: {wrong}", wrong.way) from None
        rows.append(row)
    if not rows:
        raise ConfigError(setting, path, "holds no document", "write one in each line, as JSON")
    return Documents(kind, [{key: row[key] for key in KINDS[kind]} for row in rows])


class _Wrong(Exception):
    """What is wrong with a row, and what to write instead."""

    def __init__(self, problem: str, way: str | None = None) -> None:
        super().__init__(problem)
        self.way = way or f"write one of {_shapes()}"


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"not valid JSON ({error})") from None


def _kind(row: Any) -> str:
    given = set(row) if isinstance(row, dict) else set()
    for kind, columns in KINDS.items():
        if given >= columns.keys():
            return kind
    raise _Wrong(f"keys {', '.join(sorted(given)) or 'none'}")


def _check(row: Any, kind: str, first: int) -> None:
    """Raises _Wrong where a row is not of the kind that the line `first` is of."""
    own = row if isinstance(row, dict) else {}
    if not own.keys() >= KINDS[kind].keys():
        other = _kind(own)
        raise _Wrong(
            f"is of the kind {_shape(other)}, and line {first} of {_shape(kind)}",
            "write each kind into a file of its own",
        )
    for key, wanted in KINDS[kind].items():
        value = own[key]
        if type(value) is not wanted:
            raise _Wrong(f"{key} is {json.dumps(value)[:60]}")
        if key in NOT_EMPTY and not value:
            raise _Wrong(f"{key} is empty")
        if isinstance(value, str):
            _refuse_half(key, value)
    if kind == "choice":
        choices, answer = own["choices"], own["answer"]
        if not all(isinstance(choice, str) and choice for choice in choices):
            raise _Wrong("choices holds a value that is not text, or an empty one")
        for choice in choices:
            _refuse_half("choices", choice)
        if not 0 <= answer < len(choices):
            raise _Wrong(
                f"answer is {answer} of {len(choices)} choices",
                f"count from 0: write 0 to {len(choices) - 1}",
            )


def _refuse_half(key: str, text: str) -> None:
    """JSON may spell half of a character (a lone surrogate), which no tokenizer can read. Raises
    _Wrong."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Wrong(
            f"{key} holds \\u{ord(text[error.start]):04x}, half of a character",
            "write the whole pair, or the character itself",
        ) from None


def _shape(kind: str) -> str:
    return "{" + ", ".join(KINDS[kind]) + "}"


def _shapes() -> str:
    return "; ".join(map(_shape, KINDS))


def _task_name(path: Path, setting: str) -> str | None:
    """The task of a harness's .yaml file; None where only what it includes can name it, which is
    read by the harness alone, as its functions are. Raises ConfigError where it is no task."""
    try:
        top = yaml.compose(_text(path, setting))  # no tag is carried out
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(
            setting, path, f"{where}not valid YAML ({error.problem})", "fix the file"
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(setting, path, f"not valid YAML ({error})", "fix the file") from None
    pairs = top.value if isinstance(top, yaml.MappingNode) else []
    values = {key.value: value.value for key, value in pairs if isinstance(key.value, str)}
    name = values.get("task")
    if not isinstance(name, str) and "include" not in values:
        raise no_task(path, setting)
    return name if isinstance(name, str) else None


def task_twice(name: str | None, folder: Path | None, setting: str = "tasks") -> ConfigError:
    return ConfigError(setting, folder, f"two files hold the task {name}", "rename or remove one")


def no_task(path: Path, setting: str = "tasks") -> ConfigError:
    return ConfigError(
        setting, path, "is no task of its own (task: <name>)",
        "put templates and groups elsewhere; a task's include may name them",
    )  # fmt: skip


def _text(path: Path, setting: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(setting, path, f"cannot be read ({error})", "name a text file") from None
