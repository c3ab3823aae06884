import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mor.config import ConfigError
from mor.data.corpus import documents


def rows(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def test_json_lines(files, jsonl: Path, texts: list[str]) -> None:
    source = documents(files(jsonl))
    assert list(source.texts) == texts
    assert source.size == jsonl.stat().st_size


def test_parquet_of_the_form_of_fineweb_edu(tmp_path: Path, files, texts: list[str]) -> None:
    table = pa.table(
        {
            "text": texts,
            "id": [f"<urn:uuid:{i}>" for i in range(len(texts))],
            "metadata": [{"dump": "CC-MAIN-2024-10", "score": 3.5, "url": "u"}] * len(texts),
        }
    )
    path = tmp_path / "train-00000-of-00234.parquet"
    pq.write_table(table, path, row_group_size=7)
    source = documents(files(path))
    assert list(source.texts) == texts
    assert source.size is not None
    assert 0.5 < source.size / sum(len(text.encode()) for text in texts) < 2


def test_a_list_in_json_and_compressed_lines(tmp_path: Path, files) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"text": "one"}, {"text": "two"}]))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write('{"text": "three"}\n')
    assert list(documents(files(tmp_path / "a.json")).texts) == ["one", "two"]
    packed = documents(files(tmp_path / "b.jsonl.gz"))
    assert list(packed.texts) == ["three"]
    assert packed.size is None


def test_a_text_file_is_one_document(tmp_path: Path, files) -> None:
    (tmp_path / "a.md").write_text("first line\n\nsecond line\n")
    assert list(documents(files(tmp_path / "a.md")).texts) == ["first line\n\nsecond line\n"]


def test_empty_documents_are_left_out(tmp_path: Path, files) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.jsonl").write_text("")
    rows(tmp_path / "c.jsonl", {"text": "one"}, {"text": ""}, {"text": None}, {"other": 1})
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "d.parquet")
    assert list(documents(files(tmp_path / "[a-d].*")).texts) == ["one"]


def test_another_column_and_a_name_with_brackets(tmp_path: Path, files) -> None:
    path = rows(tmp_path / "part[1].jsonl", {"body": "one"}, {"body": "two"})
    assert list(documents(files(path, text_field="body")).texts) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"body": "x", "id": 1}\n', r"type data.text_field=<one of body, id>"),
        ("a.jsonl", b'{"text": 3}\n', r"data.text_field=text: holds int and not text in .*a.jsonl"),
        ("a.jsonl", b"{oops\n[oops\n", r"data.paths=.*a.jsonl: cannot be read as json \("),
        ("a.parquet", b"nope", r"data.paths=.*a.parquet: cannot be read as parquet \("),
        ("a.bin", b"\0\1\2", r"data.paths=.*a.bin: binary"),
        ("a.txt.gz", gzip.compress(b"\0", mtime=0), r"data.paths=.*a.txt.gz: binary"),
        ("a.txt.gz", b"text", r"data.paths=.*a.txt.gz: cannot be read as text \("),
    ],
)
def test_what_cannot_be_read(
    tmp_path: Path, files, capfd: pytest.CaptureFixture, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        list(documents(files(tmp_path / name)).texts)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_parquet_file_without_the_column(tmp_path: Path, files) -> None:
    pq.write_table(pa.table({"body": ["x"], "id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"type data.text_field=<one of body, id>"):
        documents(files(tmp_path / "a.parquet"))
