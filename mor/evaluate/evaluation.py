"""A finished run on a set of tasks: by lm-evaluation-harness, into the ledger and W&B."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ledger.damage import META
from ledger.evaluation import Evaluation
from ledger.folder import RunFolder
from mor.config import ConfigError, UserError
from mor.data.hub import first_line
from mor.data.needs import Need
from mor.evaluate.engine_scorer import scorer_of
from mor.evaluate.task_sets import TaskSet, harness_version
from mor.train.corpus import corpus_of
from mor.train.folder import read_config
from mor.train.initial import trained_model
from mor.train.loop import Stopped
from mor.train.origin import read_origin
from mor.train.run import Hooks, choose_device, device_name
from mor.train.tracking import tracker

if TYPE_CHECKING:
    from lm_eval.api.task import Task

FEW_SHOT_SEED = 1234  # which examples stand in front, where a task draws them: the harness's own


@dataclass(frozen=True)
class Extent:
    """How much of a task set is scored."""

    limit: int | None = None  # documents per task; None: all
    shots: int | None = None  # examples in front of each document; None: what each task says

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if self.limit is not None and self.limit < 1:
            raise ConfigError("limit", self.limit, "no document", "type 1 or more, or leave it out")
        if self.shots is not None and self.shots < 0:
            raise ConfigError("shots", self.shots, "less than none", "type 0 or more")

    def name(self, tasks: TaskSet) -> str:
        """The name in the ledger: a part of a set is never taken for all of it."""
        limit = "" if self.limit is None else f"-limit{self.limit}"
        return tasks.name + limit + ("" if self.shots is None else f"-shots{self.shots}")


def evaluate_run(
    folder: RunFolder,
    tasks: TaskSet,
    extent: Extent,
    hooks: Hooks,
) -> Evaluation:
    """Score a finished run and keep the scores in its folder, in place of older ones.

    Raises UserError for a run or tasks that cannot be read, Stopped where it was asked to stop:
    nothing is written then.
    """
    began = time.monotonic()
    if not (folder.final / META).exists():
        raise UserError(
            f"{folder.path}: holds no finished run; name runs/<run id> of one that is done"
        )
    weights = read_origin(folder.path)[1]
    config = read_config(folder)
    corpus = corpus_of(folder, config.data, Need(val=config.train.val_tokens))
    from mor.evaluate.harness.tasks import load_tasks

    loaded = load_tasks(tasks, corpus, config.train.val_tokens, extent.shots)
    torch.set_num_threads(config.runtime.threads)
    device = choose_device(config)
    model = trained_model(folder.path).to(device)

    def between() -> None:
        if hooks.should_stop():
            raise Stopped(f"stopped while scoring {tasks.name}; it begins again")

    scorer = scorer_of(model, config.train.seq_len, config.train.precision == "bf16", between)
    from mor.evaluate.harness.model import HarnessModel

    harness_model = HarnessModel(scorer, corpus.tokenizer())
    with of_own_tasks(tasks):
        found, documents = run_harness(harness_model, loaded, extent.limit)
    evaluation = Evaluation(
        run_id=folder.run_id,
        task_set=tasks.name,
        fingerprint=tasks.fingerprint,
        documents=documents,
        limit=extent.limit,
        shots=extent.shots,
        unit=tasks.unit,
        scores=_scores(tasks, found),
        tasks=found,
        harness={
            "name": "lm-evaluation-harness",
            "version": harness_version(),
            "few_shot_seed": FEW_SHOT_SEED,
            "task_versions": {name: _version(task) for name, task in loaded.items()},
            "shots": {name: task.get_config("num_fewshot") or 0 for name, task in loaded.items()},
        },
        weights=weights,
        mean_recursions=scorer.mean_recursions,
        context=scorer.context,
        cut=harness_model.cut,
        seconds=round(time.monotonic() - began, 3),
        device=device_name(device),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        extra=hooks.provenance,
    )
    name = extent.name(tasks)
    folder.write_evaluation(name, evaluation)
    tracked = {f"evaluations/{name}/{key}": value for key, value in evaluation.scores.items()}
    tracker(config, folder, hooks.group).finish(**tracked)
    return evaluation


@contextlib.contextmanager
def of_own_tasks(tasks: TaskSet) -> Iterator[None]:
    """What goes wrong in a task of the user's (a template, a missing column) as a sentence."""
    try:
        yield
    except (UserError, Stopped, RuntimeError, MemoryError):  # ours, or torch's
        raise
    except Exception as error:
        if tasks.path is None:
            raise
        raise UserError(
            f"tasks={tasks.path}: its documents cannot be asked or scored "
            f"({type(error).__name__}: {first_line(error)}); fix the task"
        ) from error


def _scores(tasks: TaskSet, found: dict[str, dict[str, float]]) -> dict[str, float]:
    from mor.evaluate.harness.scores import scores

    return scores(tasks, found)


def run_harness(
    model: Any, loaded: dict[str, Task], limit: int | None
) -> tuple[dict[str, dict[str, float]], str]:
    """The measures of each task, by the harness itself, and a fingerprint of what was asked."""
    from lm_eval.evaluator import evaluate

    from mor.evaluate.harness.quiet import quiet
    from mor.evaluate.harness.scores import documents_of, measures

    for task in loaded.values():
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(FEW_SHOT_SEED)
    with quiet():
        # standard errors of means are ours, in closed form
        results = evaluate(model, {"tasks": loaded, "groups": {}}, limit=limit, bootstrap_iters=0)
    assert results is not None
    return measures(results, loaded), documents_of(results)


def _version(task: Task) -> Any:
    return (task.get_config("metadata") or {}).get("version")
