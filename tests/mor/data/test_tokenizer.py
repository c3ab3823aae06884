import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Core
from tokenizers import models, pre_tokenizers

from mor.config import ConfigError, DataConfig
from mor.data.tokenizer import ByteTokenizer, kept_tokenizer, make_tokenizer, refuse_vocabulary

TRAIN = DataConfig(tokenizer="train", vocab_size=400)


def test_bytes_round_trip() -> None:
    tokenizer = ByteTokenizer()
    text = "größer データ \N{GRINNING FACE}\n"
    (tokens,) = tokenizer.encode([text])
    assert tokens[-1] == tokenizer.separator
    assert (tokens == tokenizer.separator).sum() == 1
    assert tokenizer.decode(tokens) == text


def test_a_trained_tokenizer_round_trips(tmp_path: Path, texts: list[str]) -> None:
    tokenizer = make_tokenizer(TRAIN, lambda: texts, tmp_path, progress=False)
    assert 257 < tokenizer.entries <= 400
    strange = "größer\t\N{GRINNING FACE}  never seen <|endoftext|> before\n"
    for text, tokens in zip([*texts, strange], tokenizer.encode([*texts, strange]), strict=True):
        assert tokenizer.decode(tokens) == text
        assert np.flatnonzero(tokens == tokenizer.separator).tolist() == [len(tokens) - 1]
    kept = kept_tokenizer(tmp_path)
    assert np.array_equal(kept.encode([strange])[0], tokenizer.encode([strange])[0])


def test_training_is_deterministic(tmp_path: Path, texts: list[str]) -> None:
    saved = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_tokenizer(TRAIN, lambda: iter(texts), tmp_path / name, progress=False)
        saved.append((tmp_path / name / "tokenizer.json").read_bytes())
    assert saved[0] == saved[1]


def test_a_tokenizer_file(tmp_path: Path, texts: list[str]) -> None:
    make_tokenizer(TRAIN, lambda: texts, tmp_path, progress=False)
    folder = tmp_path / "packed"
    folder.mkdir()
    data = DataConfig(tokenizer=str(tmp_path / "tokenizer.json"), vocab_size=400)
    tokenizer = make_tokenizer(data, lambda: texts, folder, progress=False)
    assert tokenizer.decode(tokenizer.encode(texts[:1])[0]) == texts[0]
    assert (folder / "tokenizer.json").is_file()


def test_more_entries_than_the_embedding(tmp_path: Path, texts: list[str]) -> None:
    entries = make_tokenizer(TRAIN, lambda: texts, tmp_path, progress=False).entries
    data = DataConfig(tokenizer=str(tmp_path / "tokenizer.json"), vocab_size=300)
    words = rf"data.vocab_size=300: .* has {entries} entries; type data.vocab_size={entries}"
    with pytest.raises(ConfigError, match=words):
        make_tokenizer(data, lambda: texts, tmp_path, progress=False)
    with pytest.raises(ConfigError, match=r"data.vocab_size=100: .* type data.vocab_size=256"):
        make_tokenizer(DataConfig(vocab_size=100), lambda: texts, tmp_path, progress=False)
    with pytest.raises(ConfigError, match=r"data.vocab_size=256: data.tokenizer=train needs 256"):
        make_tokenizer(DataConfig(tokenizer="train"), lambda: texts, tmp_path, progress=False)


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    data = DataConfig(tokenizer=str(path), vocab_size=400)
    for content in ("{", json.dumps({"model": 1})):
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"data.tokenizer=.*mine.json: not a tokenizer.json"):
            make_tokenizer(data, list, tmp_path, progress=False)


def test_a_tokenizer_without_separator(tmp_path: Path) -> None:
    core = Core(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.save(str(tmp_path / "mine.json"))
    data = DataConfig(tokenizer=str(tmp_path / "mine.json"), vocab_size=400)
    with pytest.raises(ConfigError, match=r"has no entry <\|endoftext\|>"):
        make_tokenizer(data, list, tmp_path, progress=False)


def test_a_vocabulary_that_the_text_cannot_give_is_refused_at_once() -> None:
    data = DataConfig(tokenizer="train", vocab_size=100_000)
    few = ["some words of a text"] * 9
    with pytest.raises(ConfigError) as caught:
        refuse_vocabulary(data, few)
    assert caught.value.setting == "data.vocab_size"
    refuse_vocabulary(replace(data, vocab_size=2**16), few)
    refuse_vocabulary(data, (f"{i:020d}" for i in itertools.count()))  # reads no further
