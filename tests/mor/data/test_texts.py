"""Long text files: the same documents and tokens as those that are held as a whole."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from mor.config import ConfigError, DataConfig
from mor.data import texts, words
from mor.data.look import with_fingerprint
from mor.data.prepare import prepare
from mor.data.reading import read_corpus
from mor.data.texts import decoded
from mor.data.tokenizer import ByteTokenizer, SubwordTokenizer
from mor.data.words import at_words, splits_words

ENCODINGS = (
    *("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1251", "latin-1", "ascii"),
    *("gb18030", "shift_jis", "euc_kr", "big5", "iso2022_jp"),
)
CHARACTERS = st.sampled_from("aбé\ufffdデ😀 \n")


@settings(max_examples=300, deadline=None)
@given(
    encoding=st.sampled_from(ENCODINGS),
    pieces=st.lists(st.one_of(st.binary(max_size=3), st.text(CHARACTERS, max_size=5)), max_size=9),
    size=st.integers(1, 7),
)
def test_parts_decode_as_the_whole(encoding: str, pieces: list[bytes | str], size: int) -> None:
    data = DataConfig(encoding=encoding)
    content = b"".join(
        one if isinstance(one, bytes) else one.encode(encoding, "ignore") for one in pieces
    )
    if encoding in ("utf-16", "utf-32"):
        content = "".encode(encoding) + content
    assume(len(content) > 2)  # half a mark of utf-8-sig is a case of its own
    blocks = [content[i : i + size] for i in range(0, len(content), size)]
    found = list(decoded(blocks, data))
    whole = content.decode(encoding, errors="replace")
    assert "".join(part for part, _ in found) == whole
    kept = content.decode(encoding, errors="ignore").count("\ufffd")
    assert sum(lost for _, lost in found) == whole.count("\ufffd") - kept


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16", "latin-1"])
def test_long_files_in_other_encodings(tmp_path: Path, monkeypatch, encoding: str) -> None:
    """A file without the mark of utf-16 is decoded as a whole."""
    monkeypatch.setattr("mor.data.rows.LONG", 1000)
    for i in range(20):
        (tmp_path / f"{i}.txt").write_bytes((f"{i} words é " * 60).encode(encoding))
    paths = (f"{tmp_path}/*.txt",)
    name = encoding.removesuffix("-le")
    data = DataConfig("mine", "files", paths=paths, val_fraction=0.4, encoding=name)
    corpus = prepare(replace(data, cache_dir=str(tmp_path / "c")), progress=False)
    found = [*corpus.tokenizer().decode(corpus.train).split("é"),
             *corpus.tokenizer().decode(corpus.val).split("é")]  # fmt: skip
    assert sum("words" in part for part in found) == 20 * 60


def trained(*steps: pre_tokenizers.PreTokenizer) -> SubwordTokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(list(steps)) if len(steps) > 1 else steps[0]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    core.train_from_iterator([WORDS * 3], trainer)
    return SubwordTokenizer(core)


WORDS = (
    "it's  the words\n\n of 1984, we'll say: größer データ<|endoftext|>\t12 x² don't \u3000ok\r\n"
)
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
TOKENIZERS = {
    "bytes": ByteTokenizer(),
    "train": trained(BYTE_LEVEL),
    "digits": trained(pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL),
    "prefix": trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "metaspace": trained(pre_tokenizers.Metaspace()),
}
SNIPPETS = st.sampled_from(
    ["the", "word", "'s", "'ll", " ", "  ", "\n", "\r\n", "\t", "1", "98", ", ", ".", "ß", "デー",
     "<|endoftext|>", "x²", "\u3000", "é", "e\u0301", "_"]
)  # fmt: skip


def test_which_tokenizers_split_words() -> None:
    found = {name for name, one in TOKENIZERS.items() if getattr(one, "_splits_words", False)}
    assert found == {"train", "digits"}
    assert not splits_words({"pre_tokenizer": None})


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.lists(SNIPPETS, max_size=6).map("".join), max_size=30))
def test_parts_give_the_tokens_of_the_whole(name: str, parts: list[str]) -> None:
    tokenizer = TOKENIZERS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "PART_CHARS", 5)
        found = [token for part in tokenizer.encode_parts(iter(parts)) for token in part.tolist()]
        assert "".join(at_words(parts)) == "".join(parts)
    assert found == tokenizer.encode(["".join(parts)])[0].tolist()


def test_words_come_in_small_parts() -> None:
    text = "some words of a text " * 10**6
    parts = list(at_words(text[i : i + 1000] for i in range(0, len(text), 1000)))
    assert "".join(parts) == text
    assert max(map(len, parts)) < words.PART_CHARS + 1000


@pytest.fixture
def corpus(tmp_path: Path) -> DataConfig:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(12):
        content = f"file {i} has größer words and so on\n".encode() * (1 + i * 60)
        (folder / f"{i}.txt").write_bytes(content + b"\xff" * (i == 11) + bytes(str(i), "ascii"))
    (folder / "packed.txt.gz").write_bytes(gzip.compress(b"packed words " * 900))
    paths = (f"{folder}/*",)
    return DataConfig("mine", "files", paths=paths, val_fraction=0.4, cache_dir=str(tmp_path / "a"))


def files_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*.*")):
        yield str(path.relative_to(folder)), path.read_bytes()


@pytest.mark.parametrize("tokenizer", ["bytes", "train"])
@pytest.mark.parametrize(
    "settings", [{"sharded": True}, {}, {"max_tokens": 5000}], ids=["shards", "whole", "cut"]
)
def test_long_files_make_the_same_corpus(
    corpus: DataConfig, tmp_path: Path, monkeypatch, tokenizer: str, settings: dict
) -> None:
    data = replace(corpus, tokenizer=tokenizer, vocab_size=400, **settings)
    whole = prepare(data, progress=False)
    monkeypatch.setattr(texts, "PART", 37)
    monkeypatch.setattr("mor.data.rows.LONG", 3000)
    monkeypatch.setattr("mor.data.build.HELD_OUT", 100)
    other = with_fingerprint(replace(data, cache_dir=str(tmp_path / "b")))
    parts = prepare(other, progress=False)
    found, expected = dict(files_of(parts.folder)), dict(files_of(whole.folder))
    if data.max_tokens:  # the last batch reads on, and counts what it reads
        assert found.pop("meta.json")
        assert expected.pop("meta.json")
    else:
        assert parts.meta == whole.meta
    assert found == expected
    if tokenizer == "bytes" and not data.sharded:
        read = read_corpus(other)
        assert (read.train, read.val) == (whole.meta.train_tokens, whole.meta.val_tokens)


@pytest.mark.parametrize(
    ("end", "setting"), [(b"\0", "data.paths"), (b"\xff" * 50, "data.encoding")]
)
def test_long_files_that_are_no_text(
    corpus: DataConfig, tmp_path: Path, monkeypatch, end: bytes, setting: str
) -> None:
    monkeypatch.setattr("mor.data.rows.LONG", 3000)
    (tmp_path / "corpus" / "odd.txt").write_bytes(b"words " * 5000 + end)
    for sharded in (False, True):
        with pytest.raises(ConfigError) as caught:
            prepare(replace(corpus, sharded=sharded), progress=False)
        assert caught.value.setting == setting


@pytest.mark.parametrize("size", [1, 40, 10**6])
def test_training_on_parts_gives_the_same_tokenizer(corpus: DataConfig, monkeypatch, size) -> None:
    data = replace(corpus, tokenizer="train", vocab_size=400)

    def trained_in(cache: str) -> bytes:
        made = prepare(replace(data, cache_dir=data.cache_dir + cache), progress=False)
        return (made.folder / "tokenizer.json").read_bytes()

    whole = trained_in("whole")
    monkeypatch.setattr("mor.data.rows.LONG", 100)
    monkeypatch.setattr("mor.data.tokenizer.TRAINING_PART", size)
    assert trained_in("parts") == whole
