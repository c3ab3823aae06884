"""A finished run's tokenizer and corpus, from another folder and without its texts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.folder import RunFolder
from mor.config import UserError
from mor.data.needs import corpus_folder
from mor.data.prepare import prepare
from mor.data.tokenizer import ByteTokenizer
from mor.export import tokenizer_of
from mor.train.corpus import corpus_of, tokenizer_of_run
from mor.train.run import Hooks, train_run


def test_bytes_need_no_corpus(toy_run, tmp_path):
    config = toy_run("vanilla", steps=6)
    run = RunFolder(tmp_path / "runs" / "run")
    train_run(config, run, None, Hooks())
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "corpus")
    found = tokenizer_of(run.path)
    assert isinstance(found, ByteTokenizer)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("sharded", [False, True])
def test_a_relative_cache_is_looked_for_beside_the_run_store(
    sharded, toy_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    data = toy_run("vanilla").data
    data = replace(data, tokenizer="train", vocab_size=300, cache_dir="cache", sharded=sharded)
    corpus = prepare(replace(data, fingerprint=None))
    data = replace(data, fingerprint=corpus.folder.name.rpartition("-")[2])
    assert corpus_folder(data).exists()
    shutil.rmtree(tmp_path / "corpus")
    run = RunFolder(tmp_path / "runs" / "run")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = tokenizer_of_run(run, data)
    assert found.decode(found.encode(["scaling law"])[0]) == "scaling law"
    assert corpus_of(run, data).meta == corpus.meta
    assert corpus_of(RunFolder(Path("/run")), replace(data, cache_dir=str(tmp_path / "cache")))
    assert list(elsewhere.iterdir()) == []
    (tmp_path / "cache").rename(tmp_path / "gone")
    with pytest.raises(UserError):
        tokenizer_of_run(run, data)
