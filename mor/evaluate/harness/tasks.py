"""The harness's task objects of a task set.

Files of tasks are read directly, never by the harness's index of all 10,000 tasks, which takes ten
seconds to build.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mor.config import ConfigError, UserError
from mor.data.hub import first_line
from mor.data.packed import Corpus
from mor.evaluate.documents import no_task, task_twice
from mor.evaluate.harness.corpus import corpus_tasks
from mor.evaluate.harness.local import read_jsonl
from mor.evaluate.harness.quiet import quiet
from mor.evaluate.task_sets import BENCHMARKS, TaskSet

if TYPE_CHECKING:
    from lm_eval.api.task import Task

Config = dict[str, Any]


def load_tasks(
    tasks: TaskSet, corpus: Corpus, val_tokens: int, shots: int | None
) -> dict[str, Task]:
    """The tasks of a set by name, their documents loaded. `shots` replaces what tasks say; of the
    corpus, the first `val_tokens` of its held-out text are read.

    Raises ConfigError, UserError for what cannot be read or had.
    """
    from lm_eval.tasks import TaskManager

    if tasks.path is not None:
        configs = [config for file in tasks.files for config in _of_file(file)]
    elif tasks.name == "corpus":
        configs = corpus_tasks(corpus, val_tokens)
    else:
        configs = [config for name in BENCHMARKS for config in benchmark_configs(name)]
    _refuse_twice(configs, tasks)
    manager = TaskManager(include_defaults=False)
    found: dict[str, Task] = {}
    for config in configs:
        if shots is not None:
            config = {**config, "num_fewshot": shots}
        with _in_words(config, tasks):
            found |= manager.load([config])["tasks"]
    return found


def benchmark_configs(name: str) -> list[Config]:
    """The tasks of one of the paper's columns, with accuracy by likelihood per byte beside."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    root = Path(lm_eval.tasks.__file__).parent
    files = [file for pattern in BENCHMARKS[name].files for file in sorted(root.glob(pattern))]
    configs = [load_yaml(file) for file in files]
    for config in configs:
        if config["output_type"] == "multiple_choice":
            metrics = config.get("metric_list") or [
                {"metric": metric, "aggregation": "mean", "higher_is_better": True}
                for metric in ("acc", "acc_norm")
            ]
            config["metric_list"] = [*metrics, {**metrics[0], "metric": "acc_bytes"}]
    return configs


def _of_file(file: Path) -> list[Config]:
    if file.suffix == ".jsonl":
        return [read_jsonl(file)]
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        config = load_yaml(file)
    except Exception as error:  # of YAML, of an include or of a function that it names
        raise ConfigError(
            "tasks", file, f"cannot be read as a task ({first_line(error)})", "fix the file"
        ) from error
    if not isinstance(config.get("task"), str):
        raise no_task(file)
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if files:
        config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": _beside(file, files)}
    return [config]


def _beside(file: Path, given: Any) -> Any:
    """Data files, those that stand beside the task's own file by their full path."""
    if isinstance(given, dict):
        return {name: _beside(file, value) for name, value in given.items()}
    if isinstance(given, list | tuple):
        return [_beside(file, value) for value in given]
    beside = file.parent / given
    return str(beside) if beside.exists() else given


def _refuse_twice(configs: list[Config], tasks: TaskSet) -> None:
    names = [config["task"] for config in configs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise task_twice(twice, tasks.path)


@contextlib.contextmanager
def _in_words(config: Config, tasks: TaskSet) -> Iterator[None]:
    """What keeps a task from being loaded, as a sentence."""
    try:
        with quiet():
            yield
    except UserError:
        raise
    except Exception as error:  # of the hub, of `datasets` or of the harness
        name, source = config["task"], config.get("dataset_path", "its documents")
        raise UserError(
            f"tasks={tasks.path or tasks.name}: the documents of {name} ({source}) cannot be had "
            f"({first_line(error)}); load them once where there is a network, with the same "
            "HF_HOME, or name local tasks: a .jsonl file or a folder"
        ) from error
