"""The corpus of a finished run, from whatever folder one works on the run."""

from __future__ import annotations

from dataclasses import replace

from ledger.folder import RunFolder
from mor.config import DataConfig
from mor.data.needs import corpus_folder
from mor.data.packed import Corpus
from mor.data.prepare import NOTHING, Need, prepare
from mor.data.tokenizer import ByteTokenizer, Tokenizer


def corpus_of(folder: RunFolder, data: DataConfig, need: Need = NOTHING) -> Corpus:
    """The tokens that a run was trained on. A cache with a relative path that is not here is
    looked for beside the run store. Raises UserError, as `prepare` does."""
    beside = replace(data, cache_dir=str(folder.path.absolute().parent.parent / data.cache_dir))
    here = data.fingerprint is None or corpus_folder(data).exists()
    return prepare(beside if not here and corpus_folder(beside).exists() else data, need=need)


def tokenizer_of_run(folder: RunFolder, data: DataConfig) -> Tokenizer:
    """The tokenizer of a run's corpus; bytes need none. Raises UserError."""
    if data.tokenizer == "bytes":
        return ByteTokenizer()
    return corpus_of(folder, data).tokenizer()
