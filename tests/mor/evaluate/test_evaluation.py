"""A finished run on a task set: what stands in the ledger and in W&B, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ledger.evaluation import Evaluation
from ledger.folder import RunFolder
from mor.__main__ import app, main
from mor.config import UserError
from mor.data.prepare import prepare
from mor.evaluate.evaluation import Extent, evaluate_run
from mor.evaluate.harness.corpus import NEXT, PASSAGE, corpus_tasks
from mor.evaluate.show import lines_of
from mor.evaluate.task_sets import TaskSet, task_set
from mor.evaluate.task_sets import evaluated as has_scores
from mor.train.loop import Stopped
from mor.train.run import Hooks, train_run
from tests.mor.train.test_tracking import read_offline


def finished(config: Any, path: Path) -> RunFolder:
    train_run(config, RunFolder(path), None, Hooks())
    return RunFolder(path)


@pytest.fixture
def run(toy_run: Any, tmp_path: Path) -> RunFolder:
    return finished(toy_run("mor", steps=8), tmp_path / "runs" / "mor-tiny-1-00000000")


def evaluated(run: RunFolder, tasks: TaskSet) -> bool:
    return has_scores(run, tasks.name, tasks.fingerprint)


def write_texts(path: Path, *texts: str) -> Path:
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return path


def test_tasks_without_bits_per_byte_are_named(run: RunFolder, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    write_texts(own / "told.jsonl", "scaling law")
    (own / "asked.jsonl").write_text(json.dumps({"context": "a", "completion": "b"}))
    found = evaluate_run(run, task_set(str(own)), Extent(), Hooks())
    assert list(found.scores) == ["told", "avg"]
    [line] = [line for line in lines_of(found) if line.startswith("no bits per byte")]
    assert line.endswith(": asked")


def test_measures_are_printed_with_their_units_and_kept_as_the_harness_has_them() -> None:
    measured = {"n": 64.0, "acc": 0.3125, "acc_stderr": 0.0584, "nll": 275.83, "bpb": 3.9382}
    found = Evaluation(run_id="r", task_set="corpus", unit="bits per byte", tasks={"a": measured})
    [line] = [line for line in lines_of(found) if line.startswith("a ")]
    for fact in ("acc 31.2 ± 5.8 %", "nll 275.8 nats per answer", "bpb 3.938"):
        assert fact in line
    assert found.to_dict()["tasks"]["a"] == measured


def test_scores_stand_in_the_ledger_with_where_they_come_from(
    run: RunFolder, tmp_path: Path
) -> None:
    tasks = task_set(str(write_texts(tmp_path / "mine.jsonl", "scaling law 3", "document")))
    assert not evaluated(run, tasks)
    found = evaluate_run(run, tasks, Extent(), Hooks(provenance={"git_commit": "abc"}))
    assert run.evaluation("mine") == found
    assert run.evaluations() == [found]
    assert found.extra["git_commit"] == "abc"
    assert found.harness["version"]
    assert (found.context, found.cut) == (32, 0)
    assert found.mean_recursions is not None
    assert 1 <= found.mean_recursions <= 3
    assert math.isfinite(found.scores["mine"])
    again = evaluate_run(run, tasks, Extent(), Hooks())
    assert (again.tasks, again.weights) == (found.tasks, found.weights)
    assert evaluated(run, tasks)
    write_texts(tmp_path / "mine.jsonl", "other text")
    assert not evaluated(run, task_set(str(tmp_path / "mine.jsonl")))


def test_a_part_of_a_set_is_not_taken_for_all_of_it(run: RunFolder, tmp_path: Path) -> None:
    tasks = task_set(str(write_texts(tmp_path / "mine.jsonl", "one", "two", "three")))
    found = evaluate_run(run, tasks, Extent(limit=2), Hooks())
    assert found.tasks["mine"]["n"] == 2
    assert run.evaluation("mine-limit2") == found
    assert run.evaluation("mine") is None
    assert not evaluated(run, tasks)


def test_an_evaluation_of_another_version_keeps_what_it_does_not_know(run: RunFolder) -> None:
    values = {"run_id": "r", "task_set": "s", "later": [1]}
    found = Evaluation.from_dict(values)
    run.write_evaluation("s", found)
    written = json.loads(run.evaluation_file("s").read_text())
    assert written == {"schema": 1, **values}


def test_corpus_tasks_are_held_out_text_and_the_same_each_time(
    run: RunFolder, toy_run: Any, tmp_path: Path
) -> None:
    config = yaml.safe_load(run.config_file.read_text())
    corpus = prepare(dataclasses.replace(_data(run), fingerprint=config["data"]["fingerprint"]))
    held_out = corpus.tokenizer().decode(corpus.val[:512])
    text, continuation, recall = corpus_tasks(corpus, 512)
    rows = text["custom_dataset"].rows
    assert rows
    assert all(row["text"] in held_out and len(row["text"]) == PASSAGE + NEXT for row in rows)
    for row in continuation["custom_dataset"].rows:
        assert row["context"] + row["choices"][row["answer"]] in held_out
        assert len(set(row["choices"])) > 1
    answers = {row["answer"] for row in continuation["custom_dataset"].rows}
    assert len(answers) > 1
    for row in recall["custom_dataset"].rows:
        assert row["target"] in row["context"]
        assert row["context"] + row["target"] in held_out
    assert [t["custom_dataset"] for t in corpus_tasks(corpus, 512)] == [
        t["custom_dataset"] for t in (text, continuation, recall)
    ]
    found = evaluate_run(run, task_set("corpus"), Extent(), Hooks())
    assert found.tasks["corpus_text"]["n"] == len(rows)
    assert set(found.scores) == {*(t["task"] for t in (text, continuation, recall)), "avg"}


def _data(run: RunFolder) -> Any:
    from mor.train.folder import read_config

    return read_config(run).data


def test_wandb_has_the_scores(toy_run: Any, tmp_path: Path) -> None:
    config = toy_run("vanilla", steps=4)
    config = dataclasses.replace(
        config, runtime=dataclasses.replace(config.runtime, wandb="offline")
    )
    run = finished(config, tmp_path / "tracked")
    tasks = task_set(str(write_texts(tmp_path / "mine.jsonl", "scaling law")))
    found = evaluate_run(run, tasks, Extent(), Hooks())
    name = "evaluations/mine/avg"
    while name not in (summary := dict(read_offline(run.path)["summary"])):
        time.sleep(0.05)  # W&B's own process may still write
    assert float(summary[name]) == pytest.approx(found.scores["avg"])


def test_the_command_prints_scores_and_the_file(run: RunFolder, tmp_path: Path) -> None:
    path = write_texts(tmp_path / "mine.jsonl", "scaling law 3")
    ended = CliRunner().invoke(app, ["evaluate", str(run.path), "--tasks", str(path)])
    assert ended.exit_code == 0, ended.output
    assert ended.output.splitlines()[-1] == str(run.evaluation_file("mine"))
    assert "bits per byte" in ended.output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--tasks", "papre"], "tasks=papre"),
        (["--tasks", "mine.jsonl", "--limit", "0"], "limit=0"),
        (["--tasks", "mine.jsonl", "--shots", "-1"], "shots=-1"),
        (["--tasks", "damaged"], "damaged.yaml"),
        (["--tasks", "column.yaml"], "column.yaml"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    run: RunFolder, tmp_path: Path, arguments: list[str], named: str, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "mine.jsonl", "one")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "damaged.yaml").write_text("task: [")
    (tmp_path / "column.yaml").write_text(
        "task: column\ndataset_path: json\ndataset_kwargs: {data_files: {test: mine.jsonl}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{text.nothing.at_all}}'\n"
        "doc_to_choice: [a, b]\ndoc_to_target: gold\n"
    )
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr("sys.argv", ["mor", "evaluate", str(run.path), *arguments])
    assert main() == 2
    said = capsys.readouterr().err.strip()
    assert named in said
    assert len(said.splitlines()) == 1
    assert not (run.path / "evaluations").exists()


def test_runs_without_whole_weights_are_refused(run: RunFolder, tmp_path: Path) -> None:
    tasks = task_set(str(write_texts(tmp_path / "mine.jsonl", "one")))
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="no finished run"):
            evaluate_run(RunFolder(path), tasks, Extent(), Hooks())
    weights = max(run.final.rglob("*.distcp"), key=lambda path: path.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(UserError, match="damaged"):
        evaluate_run(run, tasks, Extent(), Hooks())
    assert run.evaluations() == []


def test_it_stops_when_it_is_asked_to(run: RunFolder, tmp_path: Path) -> None:
    tasks = task_set(str(write_texts(tmp_path / "mine.jsonl", "one", "two")))
    with pytest.raises(Stopped):
        evaluate_run(run, tasks, Extent(), Hooks(should_stop=lambda: True))
    assert run.evaluations() == []
