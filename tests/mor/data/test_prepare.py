import errno
import json
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ledger.errors import UserError
from mor.config import ConfigError, DataConfig, to_dict
from mor.data.known import known
from mor.data.look import refuse_unreadable
from mor.data.packed import TokenWriter
from mor.data.prepare import prepare


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def split_documents(tokens: np.ndarray, separator: int) -> list[np.ndarray]:
    ends = np.flatnonzero(tokens == separator)
    return np.split(tokens, ends + 1)[:-1]


def in_another_process(data: DataConfig, before: str = "") -> subprocess.Popen:
    code = (
        "from mor.config import *\n"
        "from mor.data import pack, packed, prepare\n"
        f"{before}\n"
        f"data = from_dict(DataConfig, {to_dict(data)!r})\n"
        "print(prepare.prepare(data, progress=False).folder)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("tokenizer", ["bytes", "train"])
def test_every_document_is_there_once_and_ends_in_the_separator(
    files, jsonl: Path, texts: list[str], tokenizer: str
) -> None:
    corpus = prepare(files(jsonl, tokenizer=tokenizer, vocab_size=400), progress=False)
    decode = corpus.tokenizer().decode
    train, val = (
        [decode(document) for document in split_documents(tokens, corpus.meta.separator)]
        for tokens in (corpus.train, corpus.val)
    )
    assert (len(train), len(val)) == (corpus.meta.train_documents, corpus.meta.val_documents)
    assert train
    assert val
    assert sorted(train + val) == sorted(texts)
    assert not set(train) & set(val)
    assert corpus.meta.val_bytes == sum(len(text.encode()) for text in val)
    assert corpus.train[-1] == corpus.val[-1] == corpus.meta.separator


def test_preparing_is_deterministic_and_done_once(tmp_path: Path, files, jsonl: Path) -> None:
    data = files(jsonl, tokenizer="train", vocab_size=300)
    corpus = prepare(data, progress=False)
    stamp = (corpus.folder / "train.bin").stat()
    again = prepare(data, progress=False)
    assert (again.folder / "train.bin").stat() == stamp
    elsewhere = prepare(replace(data, cache_dir=str(tmp_path / "other")), progress=False)
    assert contents(elsewhere.folder) == contents(corpus.folder)
    assert elsewhere.folder.name == corpus.folder.name == f"mine-{corpus.meta.fingerprint}"
    left = {path.name for path in corpus.folder.parent.iterdir()}
    assert left <= {corpus.folder.name, f".{corpus.folder.name}.lock", "digests.json"}


def test_the_split_does_not_hang_on_the_order(tmp_path: Path, files, texts: list[str]) -> None:
    held_out = []
    for seed in range(2):
        random.Random(seed).shuffle(texts)
        path = tmp_path / f"{seed}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        corpus = prepare(files(path), progress=False)
        held_out.append({bytes(document) for document in split_documents(corpus.val, 255)})
    assert held_out[0] == held_out[1]


def test_max_tokens_bounds_the_training_tokens(files, jsonl: Path) -> None:
    whole = prepare(files(jsonl), progress=False)
    corpus = prepare(files(jsonl, max_tokens=5000), progress=False)
    assert len(corpus.train) == corpus.meta.train_tokens == 5000
    assert np.array_equal(corpus.train, whole.train[:5000])
    assert np.array_equal(corpus.val, whole.val[: len(corpus.val)])


def test_two_processes_at_once_prepare_once(tmp_path: Path, files, jsonl: Path) -> None:
    data = files(jsonl, tokenizer="train", vocab_size=300)
    count = tmp_path / "count"
    before = (
        "import time; slow = pack.pack\n"
        "def counted(*args):\n"
        f"    open({str(count)!r}, 'a').write('x'); time.sleep(0.5); return slow(*args)\n"
        "prepare.pack = counted"
    )
    both = [in_another_process(data, before) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert count.read_text() == "x"


def test_a_killed_build_leaves_nothing_that_counts(tmp_path: Path, files, jsonl: Path) -> None:
    data = files(jsonl)
    before = (
        "import os, signal; add = packed.TokenWriter.add\n"
        "def deadly(self, tokens, n):\n"
        "    add(self, tokens, n); self._file.flush()\n"
        "    if self.documents == 9: os.kill(os.getpid(), signal.SIGKILL)\n"
        "packed.TokenWriter.add = deadly"
    )
    killed = in_another_process(data, before)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    cache = Path(data.cache_dir)
    leftovers = list(cache.glob(".mine-*.partial"))
    assert len(leftovers) == 1
    assert (leftovers[0] / "train.bin").stat().st_size > 0
    assert not list(cache.glob("mine-*"))

    corpus = prepare(data, progress=False)
    assert not list(cache.glob(".mine-*.partial"))
    undisturbed = prepare(replace(data, cache_dir=str(tmp_path / "other")), progress=False)
    assert contents(corpus.folder) == contents(undisturbed.folder)


@pytest.mark.parametrize("harm", ["no meta", "bad meta", "short", "no tokenizer"])
def test_a_damaged_corpus_is_prepared_again(
    files, jsonl: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    data = files(jsonl, tokenizer="train", vocab_size=300)
    folder = prepare(data, progress=False).folder
    whole = contents(folder)
    if harm == "no meta":
        (folder / "meta.json").unlink()
    elif harm == "bad meta":
        (folder / "meta.json").write_text('{"fingerprint": ')
    elif harm == "short":
        (folder / "val.bin").write_bytes(whole["val.bin"][:-1])
    else:
        (folder / "tokenizer.json").unlink()
    assert prepare(data, progress=False).folder == folder
    assert contents(folder) == whole
    assert "is damaged" in caplog.text


def test_a_full_disk(files, jsonl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = TokenWriter.add

    def full(self: TokenWriter, tokens: np.ndarray, n_bytes: int) -> None:
        if self.documents == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, tokens, n_bytes)

    data = files(jsonl)
    with monkeypatch.context() as patch:
        patch.setattr(TokenWriter, "add", full)
        with pytest.raises(UserError, match=r"data.cache_dir=.*: the disk is full.*free space"):
            prepare(data, progress=False)
    assert not [path for path in Path(data.cache_dir).iterdir() if path.is_dir()]
    assert prepare(data, progress=False).meta.train_tokens > 0


def test_a_cache_that_is_no_folder(tmp_path: Path, files, jsonl: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match=r"data.cache_dir=.*taken: cannot be written"):
        prepare(files(jsonl, cache_dir=str(tmp_path / "taken")), progress=False)


def test_other_data_than_planned(files, jsonl: Path) -> None:
    planned = "0123456789abcdef"
    data = files(jsonl)
    actual = prepare(data, progress=False).meta.fingerprint
    prepare(replace(data, fingerprint=actual), progress=False)
    with pytest.raises(UserError, match=rf"data.fingerprint={planned}: .* {actual}; copy the"):
        prepare(replace(data, fingerprint=planned), progress=False)


@pytest.mark.parametrize("val_fraction", [0.001, 0.999])
def test_a_fraction_that_splits_nothing(tmp_path: Path, files, val_fraction: float) -> None:
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(6)))
    data = files(path, val_fraction=val_fraction)
    with pytest.raises(ConfigError, match=r"data.val_fraction=.* among 6 documents") as caught:
        prepare(data, progress=False)
    advised = float(str(caught.value).rsplit("=", 1)[1])
    assert prepare(replace(data, val_fraction=advised), progress=False).meta.val_tokens > 0


def test_corpora_without_two_documents(tmp_path: Path, files) -> None:
    path = tmp_path / "a.txt"
    path.write_text("")
    with pytest.raises(ConfigError, match=r"data.paths=\[.*a.txt\]: holds no text"):
        prepare(files(path), progress=False)
    path.write_text("alone")
    with pytest.raises(ConfigError, match=r"1 document\(s\) cannot be split"):
        prepare(files(path), progress=False)


@pytest.mark.parametrize("sharded", [False, True])
def test_rows_left_out_before_are_refused_where_they_are_to_stop_it(
    files, jsonl: Path, texts: list[str], sharded: bool
) -> None:
    data = files(jsonl, sharded=sharded, val_fraction=0.5)
    stop = replace(data, on_bad_row="stop")
    good = prepare(data, progress=False).meta.fingerprint
    prepare(stop, progress=False)  # none was left out; an empty row is not bad
    with open(jsonl, "a") as file:
        file.write('{"text": ""}\n')
    prepare(data, progress=False)
    prepare(stop, progress=False)
    with open(jsonl, "a") as file:
        file.write('{"text": null}\n{"text": 7}\n')
    corpus = prepare(data, progress=False)
    planned = replace(stop, fingerprint=corpus.meta.fingerprint)
    assert corpus.meta.fingerprint != good
    for read in (lambda: prepare(stop, False), lambda: prepare(planned, False),
                 lambda: refuse_unreadable([planned])):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            read()
        assert caught.value.setting == "data.on_bad_row"
        assert "1 null (first: " in str(caught.value)
        assert "1 int (first: " in str(caught.value)
    refuse_unreadable([replace(planned, on_bad_row="skip")])


@pytest.mark.parametrize("sharded", [False, True])
def test_replaced_characters_are_kept_with_the_tokens(tmp_path: Path, files, sharded: bool) -> None:
    for i in range(20):
        (tmp_path / f"{i}.txt").write_bytes(f"text {i} ".encode() * 500 + b"\xff" * (i == 7))
    data = files(tmp_path / "*.txt", sharded=sharded, val_fraction=0.4)
    corpus = prepare(data, progress=False)
    planned = replace(data, fingerprint=corpus.meta.fingerprint)
    tally = known(planned).tally
    assert (tally.replaced, tally.rows, dict(tally.skipped)) == (1, 20, {})
    assert tally.places == {"replaced": str(tmp_path / "7.txt")}
    assert corpus.meta.train_documents + corpus.meta.val_documents == 20
    with pytest.raises(ConfigError) as caught:
        prepare(replace(planned, on_bad_row="stop"), progress=False)
    assert caught.value.setting == "data.on_bad_row"
    with pytest.raises(ConfigError) as caught:
        prepare(replace(data, on_bad_row="stop", cache_dir=str(tmp_path / "other")), progress=False)
    assert caught.value.setting == "data.on_bad_row"


def test_an_error_while_a_tokenizer_trains_is_kept(tmp_path: Path, files) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{oops\n")
    with pytest.raises(ConfigError, match=r"a.jsonl: cannot be read as json"):
        prepare(files(path, tokenizer="train", vocab_size=300), progress=False)
    assert not list(tmp_path.glob("cache/*-*/"))


def test_the_standard_library_is_enough_to_train_on(tmp_path: Path) -> None:
    data = DataConfig(cache_dir=str(tmp_path))
    corpus = prepare(data, progress=False)
    assert corpus.train.dtype == np.uint8
    assert len(corpus.train) > 5_000_000
    assert len(corpus.val) > 100_000
    assert (corpus.train == 255).sum() == corpus.meta.train_documents
