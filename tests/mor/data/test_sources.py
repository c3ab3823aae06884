import os
from pathlib import Path

import pytest

from mor.config import ConfigError, DataConfig
from mor.data.sources import source_files, text_format


def test_the_standard_library_without_tests_and_packages(tmp_path: Path) -> None:
    labels = [file.label for file in source_files(DataConfig(cache_dir=str(tmp_path)))]
    assert labels == sorted(labels)
    assert {"abc.py", "json/decoder.py", "pydoc_data/topics.py"} <= set(labels)
    parts = {part for label in labels for part in label.split("/")}
    assert not parts & {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    assert not any(part.startswith(("config-", "_sysconfigdata")) for part in parts)
    assert {os.path.splitext(label)[1] for label in labels} <= {".py", ".txt", ".rst"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", "text"),
        ("README", "text"),
        ("a.JSONL", "json"),
        ("a.json.gz", "json"),
        ("a.ndjson.zst", "json"),
        ("a.parquet", "parquet"),
    ],
)
def test_format_by_the_ending(name: str, expected: str) -> None:
    assert text_format(Path(name)) == expected


def test_order_and_repetition_of_paths_do_not_matter(tmp_path: Path, files) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    pattern = tmp_path / "*.txt"
    forwards = source_files(files(tmp_path / "a.txt", pattern))
    backwards = source_files(files(tmp_path / "c.txt", tmp_path / "a.txt", tmp_path / "b.txt"))
    assert [file.digest for file in forwards] == [file.digest for file in backwards]
    assert len(forwards) == 3


def test_a_name_with_brackets_is_a_name(tmp_path: Path, files) -> None:
    path = tmp_path / "part[1].txt"
    path.write_text("text")
    assert [file.path for file in source_files(files(path))] == [path]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("gone.jsonl", "no such file"),
        ("*.jsonl", "matches no file"),
        (".", r"a folder; type 'data.paths=\[.*\*\*/\*.txt\]'"),
        ("nowhere/*.txt", r"there is no folder .*nowhere; type "),
    ],
)
def test_paths_that_name_nothing(tmp_path: Path, files, pattern: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.paths=.*{words}"):
        source_files(files(tmp_path / pattern))


def test_no_paths(files) -> None:
    with pytest.raises(ConfigError, match=r"no file is named; type 'data.paths"):
        source_files(files())
