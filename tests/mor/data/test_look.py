"""Mistakes in a corpus that planning finds, each by the setting that is wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from mor.config import ConfigError, DataConfig
from mor.data import look
from mor.data.fingerprint import fingerprint
from mor.data.look import refuse_no_room, refuse_unreadable
from mor.data.packed import Meta
from mor.data.prepare import prepare
from mor.data.reading import read_corpus


def corpus(
    tmp_path: Path, name: str, content: bytes | None = None, **settings: object
) -> DataConfig:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    made = DataConfig(
        name="own", kind="files", paths=(str(path),), cache_dir=str(tmp_path / "cache")
    )
    return replace(made, **settings)  # type: ignore[arg-type]


def rows(*each: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in each).encode()


MISTAKES = {
    "another-column.jsonl": (rows({"body": "a"}), "data.text_field", "body"),
    "late-column.jsonl": (rows(*[{"body": "a"}] * 3, {"raw": "b"}), "data.text_field", "raw"),
    "numbers.jsonl": (rows({"text": 5}, {"text": 6}), "data.text_field", "int"),
    "not-json.jsonl": (b"hello\n", "data.paths", "line 1"),
    "not-parquet.parquet": (b"hello\n", "data.paths", "parquet"),
    "not-gzip.jsonl.gz": (b"hello\n", "data.paths", "not-gzip"),
    "binary.txt": (b"a\0b", "data.paths", "binary.txt"),
    "table.csv": (b"text\na\n", "data.paths", ".csv"),
    "table.CSV.gz": (gzip.compress(b"text\na\n"), "data.paths", ".csv"),
    "all.tar.gz": (b"", "data.paths", ".tar"),
    "book.pdf": (b"%PDF", "data.paths", ".pdf"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_before_anything_is_prepared(name: str, tmp_path: Path) -> None:
    content, setting, word = MISTAKES[name]
    data = corpus(tmp_path, name, content)
    with pytest.raises(ConfigError) as raised:
        refuse_unreadable([replace(data, fingerprint=fingerprint(data))])
    assert raised.value.setting == setting
    assert word in str(raised.value)


def test_every_file_that_cannot_be_read_is_named_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(40):
        (folder / f"good{i}.txt").write_text(f"some text {i} " * 20)
    (folder / "cut.json").write_bytes(b'[{"text": "a"}, {"te')
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
    (folder / "odd.txt").write_bytes(b"text " * 30_000 + b"\0\1")  # late in the file
    (folder / "other.txt").write_bytes("больше".encode("cp1251") * 20)
    (folder / "column.jsonl").write_bytes(rows({"body": "a"}))
    (folder / "rows.jsonl").write_bytes(rows({"text": "a"}) + b'{"text": "cut')
    data = corpus(tmp_path, "corpus/*")
    bad = ("cut.json", "photo.jpg", "odd.txt", "other.txt", "column.jsonl")
    for more in ((), ("table.csv",)):
        for name in more:
            (folder / name).write_text("text\na\n")
        with pytest.raises(ConfigError) as raised:
            refuse_unreadable([look.with_fingerprint(data)])
        assert raised.value.setting == "data.paths"
        said = str(raised.value)
        assert [name for name in (*bad, *more) if f"corpus/{name} (" not in said] == []
        assert "good" not in said
        assert "rows.jsonl" not in said
    assert "data.encoding" in said
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").glob("own-*"))
    for name in ("table.csv", *bad):
        (folder / name).unlink()
    planned = look.with_fingerprint(data)
    refuse_unreadable([planned])
    found, made = read_corpus(planned), prepare(planned)
    assert (found.train, found.val) == (made.meta.train_tokens, made.meta.val_tokens)
    assert dict(found.tally.skipped) == made.meta.skipped == {"not JSON": 1}
    assert found.tally.places == made.meta.places


def tokens_of(meta: Meta) -> tuple[int, int]:
    return meta.train_tokens, meta.val_tokens


def outcome(read: Callable, data: DataConfig) -> tuple[int, int] | str:
    """The tokens of a corpus, or the setting that is refused."""
    try:
        return read(data)
    except ConfigError as refused:
        return refused.setting


@pytest.mark.parametrize("max_tokens", [None, 1, 500, 10**9])
def test_reading_counts_as_preparing_does(max_tokens: int | None, tmp_path: Path) -> None:
    content = rows(*[{"text": f"words {i} größer " * 9} for i in range(60)])
    data = corpus(tmp_path, "a.jsonl", content, max_tokens=max_tokens, val_fraction=0.4)
    planned = look.with_fingerprint(data)
    read = outcome(lambda data: (read_corpus(data).train, read_corpus(data).val), planned)
    assert read == outcome(lambda data: tokens_of(prepare(data).meta), planned)


def test_what_max_tokens_leaves_out_is_no_mistake(tmp_path: Path) -> None:
    """Preparing does not read on, so planning does not."""
    (tmp_path / "texts.jsonl").write_bytes(rows(*[{"text": f"w {i} " * 9} for i in range(60)]))
    (tmp_path / "zero.txt").write_bytes(b"\0" * 10)
    data = corpus(tmp_path, "texts.jsonl", max_tokens=200, val_fraction=0.4)
    data = replace(data, paths=(*data.paths, str(tmp_path / "zero.txt")))
    refuse_unreadable([look.with_fingerprint(data)])


def test_a_parquet_file_without_the_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["a"]}), tmp_path / "a.parquet")
    data = corpus(tmp_path, "a.parquet")
    with pytest.raises(ConfigError, match="content") as raised:
        refuse_unreadable([replace(data, fingerprint=fingerprint(data))])
    assert raised.value.setting == "data.text_field"


def test_rows_without_text_at_the_beginning_are_no_mistake(tmp_path: Path) -> None:
    """Preparing takes such a file, so planning does."""
    content = rows(
        *[{"id": i} for i in range(2000)], *[{"text": f"late {i} " * 9} for i in range(9)]
    )
    data = corpus(tmp_path, "late.jsonl", content, val_fraction=0.5)
    planned = replace(data, fingerprint=fingerprint(data))
    refuse_unreadable([planned])
    assert prepare(planned).meta.train_tokens > 0


def test_a_tokenizer_with_more_entries_than_the_model(tmp_path: Path) -> None:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
    )
    core.train_from_iterator(["several words of a text"] * 9, trainer)
    core.save(str(tmp_path / "tokenizer.json"))
    entries = core.get_vocab_size()
    data = corpus(
        tmp_path,
        "a.jsonl",
        rows(*[{"text": f"text {i}"} for i in range(90)]),
        tokenizer=str(tmp_path / "tokenizer.json"),
    )
    data = replace(data, fingerprint=fingerprint(data))
    refuse_unreadable([replace(data, vocab_size=entries)])
    with pytest.raises(ConfigError, match=str(entries)) as raised:
        refuse_unreadable([replace(data, vocab_size=entries - 1)])
    assert raised.value.setting == "data.vocab_size"


def test_what_is_prepared_is_not_looked_at_again(tmp_path, monkeypatch) -> None:
    data = corpus(tmp_path, "a.jsonl", rows(*[{"text": f"words {i} " * 9} for i in range(60)]))
    data = replace(data, fingerprint=fingerprint(data))
    prepare(data)
    monkeypatch.setattr(look, "read_corpus", None)
    refuse_unreadable([data])


@pytest.mark.parametrize(("vocab_size", "each"), [(256, 1), (65_536, 2), (65_537, 4)])
def test_a_disk_that_is_too_small(vocab_size: int, each: int, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(look.shutil, "disk_usage", lambda path: type("", (), {"free": 4000}))
    data = corpus(tmp_path, "a.txt", vocab_size=vocab_size)
    refuse_no_room(data, 4000 // each)
    with pytest.raises(ConfigError) as raised:
        refuse_no_room(data, 4000 // each + 1)
    assert raised.value.setting == "data.cache_dir"
    refuse_no_room(replace(data, max_tokens=100), 10**9)
