import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mor.config import ConfigError, DataConfig
from mor.data.fingerprint import fingerprint


def test_the_same_text_has_one_fingerprint_wherever_it_lies(
    tmp_path: Path, files, jsonl: Path
) -> None:
    data = files(jsonl)
    first = fingerprint(data)
    assert len(first) == 16
    assert int(first, 16) >= 0
    elsewhere = tmp_path / "elsewhere" / "renamed.jsonl"
    elsewhere.parent.mkdir()
    shutil.copy(jsonl, elsewhere)
    moved = replace(data, name="x", paths=(str(elsewhere),), cache_dir=str(tmp_path / "other"))
    assert fingerprint(moved) == first
    assert fingerprint(replace(data, fingerprint="0" * 16)) == first


def test_it_changes_with_whatever_changes_the_tokens(tmp_path: Path, files, jsonl: Path) -> None:
    data = files(jsonl)
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    variants = [
        data,
        replace(data, text_field="n"),
        replace(data, vocab_size=512),
        replace(data, val_fraction=0.3),
        replace(data, max_tokens=100),
        replace(data, tokenizer="train", vocab_size=512),
        replace(data, tokenizer=str(tokenizer)),
    ]
    found = [fingerprint(variant) for variant in variants]
    tokenizer.write_text("{ }")
    found.append(fingerprint(variants[-1]))
    with open(jsonl, "a") as file:
        file.write('{"text": "one more"}\n')
    found.append(fingerprint(data))
    assert len(set(found)) == len(found)


def test_plain_text_knows_no_column(tmp_path: Path, files) -> None:
    (tmp_path / "a.txt").write_text("text")
    data = files(tmp_path / "a.txt")
    assert fingerprint(replace(data, text_field="body")) == fingerprint(data)


def test_the_hub_is_not_asked() -> None:
    data = DataConfig(
        kind="hub", dataset="o/d", subset="s", revision="r", tokenizer="o/t", vocab_size=49152
    )
    assert fingerprint(data) == fingerprint(replace(data, cache_dir="/elsewhere"))
    for change in ({"dataset": "o/e"}, {"subset": "t"}, {"revision": "q"}, {"tokenizer": "o/u"}):
        assert fingerprint(replace(data, **change)) != fingerprint(data)


def test_planning_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from mor.config import DataConfig; from mor.data.fingerprint import *\n"
        f"print(fingerprint(DataConfig(cache_dir={str(tmp_path)!r})))\n"
        "print({'torch', 'datasets', 'tokenizers', 'numpy'} & set(sys.modules))"
    )
    first = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert first.stdout.split("\n")[1] == "set()"
    again = fingerprint(DataConfig(cache_dir=str(tmp_path)))
    assert again == first.stdout.split("\n")[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "file"}, "data.kind=file: no such kind; did you mean files?"),
        ({"kind": "hub"}, "data.dataset=None: no dataset is named"),
        ({"val_fraction": 0.0}, "data.val_fraction=0.0: not between 0 and 1"),
        ({"val_fraction": 1.5}, "data.val_fraction=1.5"),
        ({"max_tokens": 0}, "data.max_tokens=0: nothing would be left"),
        ({"paths": ("a.txt", "b.txt")}, "data.paths=[a.txt,b.txt]: "),
        ({"text_field": "body"}, "data.text_field=body: "),
        ({"sharded": True}, "data.sharded=true: "),
        ({"dataset": "a/b"}, "data.dataset=a/b: "),
        ({"revision": "abc"}, "data.revision=abc: "),
        ({"tokens": 1e9}, "data.tokens=1e9: "),
        ({"kind": "files", "paths": ("a",), "window_tokens": 9}, "data.window_tokens=9: "),
        ({"kind": "files", "paths": ("a",), "mirror": "x"}, "data.mirror=x: "),
        ({"kind": "hub", "dataset": "a/b", "paths": ("a",)}, "data.paths=[a]: "),
        ({"tokenizer": "gone.json"}, "data.tokenizer=gone.json: neither"),
        ({"tokenizer": "byte"}, "data.tokenizer=byte: neither"),
    ],
)
def test_settings_that_name_no_corpus(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fingerprint(DataConfig(cache_dir=str(tmp_path), **settings))
    assert str(caught.value).startswith(message)
