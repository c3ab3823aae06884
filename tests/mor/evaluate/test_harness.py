"""Task sets by the harness itself: local files, the corpus, and the paper's six benchmarks."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.instance import Instance

from mor.config import ConfigError, UserError
from mor.data.prepare import prepare
from mor.data.tokenizer import ByteTokenizer
from mor.evaluate.evaluation import run_harness
from mor.evaluate.harness.local import read_jsonl
from mor.evaluate.harness.model import HarnessModel
from mor.evaluate.harness.scores import scores
from mor.evaluate.harness.tasks import benchmark_configs, load_tasks
from mor.evaluate.scoring import Asked, Scored, Window
from mor.evaluate.task_sets import BENCHMARKS, PRESETS, TaskSet, task_set

NO_CORPUS: Any = None


class Unigram:
    """A scorer whose every number can be told by hand: a byte costs its value / 100 nats."""

    mean_recursions = None

    def __init__(self, context: int = 10_000, writes: bytes = b"") -> None:
        self.context, self.writes = context, writes

    def score(self, windows: Sequence[Window]) -> list[Scored]:
        return [Scored(-sum(w.predict) / 100, max(w.predict) < 110) for w in windows]

    def generate(self, asked: Sequence[Asked]) -> list[list[int]]:
        self.asked = list(asked)
        return [self._continue(one) for one in asked]

    def _continue(self, asked: Asked) -> list[int]:
        new: list[int] = []
        for token in self.writes[: asked.n_new]:
            new.append(token)
            if asked.stop(new):
                break
        return new


def nats(text: str) -> float:
    return sum(text.encode()) / 100


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def evaluate(given: Path | str, scorer: Any = None) -> tuple[TaskSet, dict[str, dict[str, float]]]:
    tasks = task_set(str(given))
    model = HarnessModel(scorer or Unigram(), ByteTokenizer())
    return tasks, run_harness(model, load_tasks(tasks, NO_CORPUS, 0, None), None)[0]


def test_local_choices_targets_and_texts(tmp_path: Path) -> None:
    write(
        tmp_path / "choice.jsonl",
        [
            {"context": "é", "choices": ["a", "zz"], "answer": 0},  # a: right, and by bytes
            {"context": "b {{x}}", "choices": ["aaa", "z"], "answer": 0},  # right only by bytes
        ],
    )
    write(
        tmp_path / "target.jsonl",
        [{"context": "x", "target": " ab"}, {"context": "y", "target": " zé"}],
    )
    write(tmp_path / "text.jsonl", [{"text": "hé"}, {"text": "abc"}])
    tasks, found = evaluate(tmp_path)
    assert found["choice"]["acc"] == 0.5
    assert found["choice"]["acc_bytes"] == found["choice"]["acc_norm"] == 1.0
    assert found["choice"]["nll"] == pytest.approx((nats("a") + nats("aaa")) / 2)
    assert found["choice"]["bpb"] == pytest.approx((nats("aaaa")) / 4 / math.log(2))
    assert found["choice"]["acc_stderr"] == pytest.approx(0.5)
    assert found["target"]["acc"] == 0.5
    assert found["target"]["bpb"] == pytest.approx(nats(" ab zé") / 7 / math.log(2))
    assert found["text"]["bpb"] == pytest.approx(found["text"]["bits_per_byte"])
    assert found["text"]["bpb"] == pytest.approx(nats("héabc") / 6 / math.log(2))
    assert {each["n"] for each in found.values()} == {2.0}
    said = scores(tasks, found)
    assert said == {
        **{name: each["bpb"] for name, each in found.items()},
        "avg": pytest.approx(sum(each["bpb"] for each in found.values()) / 3),
    }


def test_accuracy_by_bytes_differs_from_that_by_characters(tmp_path: Path) -> None:
    """é is one character and two bytes (195 + 169): 3.64 nats, 1.82 per byte, against z's 1.22."""
    row = {"context": "x", "choices": ["é", "\u2014"], "answer": 1}  # — is 226 128 148: 1.67 a byte
    _, found = evaluate(write(tmp_path / "one.jsonl", [row]))
    assert (found["one"]["acc_norm"], found["one"]["acc_bytes"]) == (0.0, 1.0)


def test_generation_ends_at_a_stop_string(tmp_path: Path) -> None:
    path = write(tmp_path / "line.jsonl", [{"context": "2 + 2 = ", "completion": "four"}])
    for writes, exact in ((b"four\nfive", 1.0), (b"fourth\n", 0.0), (b"four\xff junk", 1.0)):
        assert evaluate(path, Unigram(writes=writes))[1]["line"]["exact_match"] == exact


def test_a_yaml_task_reads_the_data_beside_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "questions.yaml").write_text(
        "task: questions\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.json}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: 'Q: {{q}}\\nA:'\n"
        "doc_to_choice: '{{options}}'\ndoc_to_target: gold\n"
    )
    rows = [{"q": "one?", "options": ["a", "z"], "gold": 0}]
    (folder / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    _, found = evaluate(folder / "questions.yaml")
    assert found["questions"]["acc"] == 1.0
    assert found["questions"]["nll"] == pytest.approx(nats(" a"))


@given(context=st.text(max_size=12), continuation=st.text(min_size=1, max_size=12))
def test_a_pair_spells_the_text_and_splits_it_before_the_continuation(
    context: str, continuation: str
) -> None:
    model = HarnessModel(Unigram(), ByteTokenizer())
    try:
        (context + continuation).encode()
    except UnicodeEncodeError:  # half of a surrogate pair is no text
        return
    before, tokens = model.pair(context, continuation)
    assert before
    start = [] if before == [255] and not context.strip() else before
    if context.strip():
        assert bytes(start + tokens) == (context + continuation).encode()
        assert bytes(start) == context.rstrip().encode()
    assert tokens


def test_a_continuation_that_joins_its_context_is_scored(toy_run: Any) -> None:
    """Merged into the context's last token: the pair is cut before that token."""
    data = dataclasses.replace(
        toy_run("vanilla").data, tokenizer="train", vocab_size=300, fingerprint=None
    )
    model = HarnessModel(Unigram(), prepare(data).tokenizer())
    text = "scaling law document"
    for cut in range(1, len(text)):
        before, tokens = model.pair(text[:cut], text[cut:])
        assert before
        assert tokens
        whole = model.encode(text)
        assert tokens == whole[len(whole) - len(tokens) :]


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a\u2028b"}\n\n{"text": "c\x85d"}\n')
    assert [row["text"] for row in read_jsonl(tmp_path / "t.jsonl")["custom_dataset"].rows] == [
        "a\u2028b",
        "c\x85d",
    ]


def test_requests_that_do_not_fit_are_counted_and_all_of_an_answer_is_scored(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "long.jsonl", [{"context": "c" * 30, "target": "t" * 50}])
    tasks = task_set(str(path))
    model = HarnessModel(Unigram(context=16), ByteTokenizer())
    found, _ = run_harness(model, load_tasks(tasks, NO_CORPUS, 0, None), None)
    assert model.cut == 1
    assert found["long"]["nll"] == pytest.approx(nats("t" * 50))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no document"),
        ("{", "line 1"),
        ('{"context": "a"}', "line 1"),
        ('{"text": ""}', "text is empty"),
        ('{"context": "a", "choices": ["b"], "answer": 1}', "answer is 1"),
        ('{"context": "a", "choices": ["b"], "answer": true}', "answer is true"),
        ('{"context": "a", "choices": [3], "answer": 0}', "choices"),
        ('{"text": "a"}\n{"text": 3}', "line 2"),
        ('{"text": "a"}\n\n{"context": "a"}', "line 3: keys context"),
        ('\n{"text": "a"}\n{"context": "a", "target": "x"}', "{context, target}, and line 2"),
        ("[1]", "line 1"),
        ("[" * 100_000, "line 1"),
        ('{"text": "\\ud83d\\ude00"}\n{"text": "a\\ud83d"}', r"line 2: text holds \\ud83d"),
        ('{"context": "\\ude00", "target": "x"}', "line 1: context"),
        ('{"context": "a", "target": "\\udfff"}', "line 1: target"),
        ('{"context": "a", "completion": "\\ud800"}', "line 1: completion"),
        ('{"context": "a", "choices": ["b", "\\ud800c"], "answer": 0}', "line 1: choices"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=said) as refused:
        read_jsonl(tmp_path / "t.jsonl")
    assert refused.value.setting == "tasks"
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("b.yaml", "task: a\n", "two files hold the task a"),
        ("b.yaml", "dataset_path: x\n", "no task of its own"),
        ("b.yaml", "task: [x]\n", "no task of its own"),
        ("b.yaml", "? [x]\n: y\n", "no task of its own"),
        ("b.yaml", "include: a.yml\n", None),
        ("b.yaml", "task: b\ndoc_to_text: !function own.text\n", None),
        ("c.jsonl", '{"text": "b"}', None),
    ],
)
def test_files_are_checked_where_a_set_is_named(
    tmp_path: Path, name: str, text: str, said: str | None
) -> None:
    write(tmp_path / "a.jsonl", [{"text": "a"}])
    (tmp_path / name).write_text(text)
    if said is None:
        assert len(task_set(str(tmp_path)).files) == 2
        return
    with pytest.raises(ConfigError, match=said) as refused:
        task_set(str(tmp_path), "study.evaluate")
    assert refused.value.setting == "study.evaluate"


def test_task_sets_are_named_and_change_with_their_contents(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": "one"}])
    before = task_set(str(path))
    assert (before.name, task_set(str(path))) == ("a", before)
    write(path, [{"text": "two"}])
    assert task_set(str(path)).fingerprint != before.fingerprint
    assert len({task_set(name).fingerprint for name in PRESETS}) == len(PRESETS)
    for wrong in ("nothing", str(tmp_path / "b.jsonl")):
        with pytest.raises(ConfigError):
            task_set(wrong)
    (tmp_path / "paper").mkdir()
    write(tmp_path / "paper" / "a.jsonl", [{"text": "one"}])
    with pytest.raises(ConfigError, match="preset"):
        task_set(str(tmp_path / "paper"))


def test_answers_are_sampled_where_a_task_says_so_each_by_a_seed_of_its_own() -> None:
    scorer = Unigram(writes=b"abc")
    model = HarnessModel(scorer, ByteTokenizer())
    given = [
        {"do_sample": True, "temperature": 0.7, "max_gen_toks": 2},
        {"do_sample": True, "temperature": 0.7},
        {"do_sample": False, "temperature": 0.7},
        {"temperature": 0.7},
    ]
    asked = [
        Instance(request_type="generate_until", doc={}, arguments=("x", one), idx=i)
        for i, one in enumerate(given)
    ]
    assert model.generate_until(asked) == ["ab", "abc", "abc", "abc"]
    assert [one.temperature for one in scorer.asked] == [0.7, 0.7, 0.0, 0.0]
    assert len({one.seed for one in scorer.asked}) == 4
    assert model.generate_until([]) == []


def test_a_character_that_is_not_complete_ends_no_answer() -> None:
    """The replacement character stands for bytes that may become another character."""
    scorer = Unigram(writes="é, and on".encode())
    model = HarnessModel(scorer, ByteTokenizer())
    given = {"until": ["\ufffd", ","]}
    asked = Instance(request_type="generate_until", doc={}, arguments=("x", given), idx=0)
    assert model.generate_until([asked]) == ["é"]


# -- the paper's benchmarks, on documents of their form ----------------------------------------

ARC = {
    "question": "What?",
    "choices": {"text": ["b", "aaaa"], "label": ["A", "B"]},
    "answerKey": "B",
}
MMLU = {"question": "Which?", "choices": ["a", "bb", "cc", "dd"], "answer": 0}
DOCUMENTS: dict[str, list[dict[str, Any]]] = {
    "EleutherAI/lambada_openai": [{"text": "say a"}, {"text": "say zoo"}],
    "Rowan/hellaswag": [
        {
            "activity_label": "Run", "ctx_a": "He runs.", "ctx_b": "he",
            "endings": ["a", "zz", "zzz", "zz"], "label": "0",
        }
    ],
    "baber/piqa": [{"goal": "Do", "sol1": "a", "sol2": "z", "label": 1}],
    "allenai/winogrande": [
        {"sentence": "The _ is big.", "option1": "a", "option2": "b", "answer": "1"}
    ],
    "allenai/ai2_arc": [ARC],
    "cais/mmlu": [MMLU],
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """The benchmarks' documents without a network: a few of their form; what was asked for."""
    asked = []

    def load(path: str, name: str | None = None, **options: Any) -> datasets.DatasetDict:
        asked.append((path, name))
        rows = DOCUMENTS[path]
        if name == "ARC-Easy":
            rows = [{**ARC, "answerKey": "A"}]
        if name == "anatomy":
            rows = [{**MMLU, "answer": 1}] * 3
        splits = ("train", "validation", "test", "dev")
        return datasets.DatasetDict({s: datasets.Dataset.from_list(rows) for s in splits})

    monkeypatch.setattr("datasets.load_dataset", load)
    return asked


def test_the_paper_s_preset_on_documents_of_its_benchmarks(hub: list[tuple[str, Any]]) -> None:
    tasks, found = evaluate("paper")
    assert {path for path, _ in hub} == set(DOCUMENTS)
    assert sum(path == "cais/mmlu" for path, _ in hub) == 57
    said = scores(tasks, found)
    assert said["lambada"] == 50.0  # " a" is greedy, " zoo" is not
    assert said["hellaswag"] == 100.0
    assert said["piqa"] == 0.0
    assert said["winogrande"] == 100.0  # a draw: the first
    assert found["arc_easy"]["acc_bytes"] == 0.0  # by bytes, "aaaa" is likelier than "b"
    assert found["arc_easy"]["acc"] == 1.0
    assert said["arc"] == 50.0
    assert said["mmlu"] == pytest.approx(100 * 56 / 59)  # by document, not by subject
    columns = [said[name] for name in BENCHMARKS]
    assert said["avg"] == pytest.approx(sum(columns) / 6)
    assert list(said) == [*BENCHMARKS, "avg"]


def test_the_small_preset_scores_the_right_answers_in_bits_per_byte(
    hub: list[tuple[str, Any]],
) -> None:
    tasks, found = evaluate("small")
    said = scores(tasks, found)
    assert said["lambada"] == pytest.approx(nats(" a zoo") / 6 / math.log(2))
    assert said["piqa"] == pytest.approx(nats(" z") / 2 / math.log(2))
    assert said["winogrande"] == pytest.approx(nats(" is big.") / 8 / math.log(2))
    easy, challenge = nats(" b") / 2, nats(" aaaa") / 5
    assert said["arc"] == pytest.approx((easy + challenge) / 2 / math.log(2))


def test_no_benchmark_has_shots_and_all_have_what_is_counted() -> None:
    for name, benchmark in BENCHMARKS.items():
        configs = benchmark_configs(name)
        assert {config.get("num_fewshot") or 0 for config in configs} == {0}
        for config in configs:
            assert benchmark.metric in {m["metric"] for m in config["metric_list"]}


def test_tasks_that_need_a_network_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*given: Any, **options: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub.\nmore lines")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(UserError, match="lambada_openai") as refused:
        load_tasks(task_set("paper"), NO_CORPUS, 0, None)
    assert "\n" not in str(refused.value)
