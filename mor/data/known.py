"""What is known of a corpus before runs read it: its size, and the rows that hold no text.

What is prepared is described beside its tokens. A corpus of whole files that is not prepared is
read (`mor.data.reading`); one in shards has at most what its files hold.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ledger.errors import UserError
from ledger.files import read_json
from mor.config import ConfigError, DataConfig
from mor.data.fingerprint import codec, is_sharded
from mor.data.manifest import MANIFEST, read_manifest
from mor.data.needs import corpus_folder, held
from mor.data.packed import META
from mor.data.reading import is_read_whole, read_corpus
from mor.data.sources import compression_of, named_files, text_format
from mor.data.tally import Tally

OF_BYTES = ("bytes", "train")  # tokenizers that make no more tokens than there are bytes


@dataclass(frozen=True)
class Known:
    """Tokens of a corpus, exact or at most; None: not known."""

    train: int | None = None
    val: int | None = None
    exact: bool = False
    tally: Tally = field(default_factory=Tally)


NOTHING = Known()


def known(data: DataConfig) -> Known:
    """What this machine knows of a planned corpus (data.fingerprint); nothing of one that is not
    planned, or whose files are not here."""
    if data.fingerprint is None:
        return NOTHING
    described = corpus_folder(data) / (MANIFEST if is_sharded(data) else META)
    try:
        changed = described.stat().st_mtime_ns
    except OSError:
        changed = None
    return _known(data, changed)


@cache
def _known(data: DataConfig, changed: int | None) -> Known:
    with contextlib.suppress(UserError, OSError, ValueError, TypeError, KeyError):
        if is_sharded(data):
            return _in_shards(data)
        if changed is not None:
            return _packed(data)
        if is_read_whole(data):
            found = read_corpus(data)
            if data.tokenizer in OF_BYTES:
                exact = data.tokenizer == "bytes"
                return Known(found.train, found.val, exact, found.tally)
            return Known(tally=found.tally)
    return NOTHING


def _packed(data: DataConfig) -> Known:
    meta = read_json(corpus_folder(data) / META) or {}
    skipped = Counter({str(kind): int(n) for kind, n in meta.get("skipped", {}).items()})
    rows = meta["train_documents"] + meta["val_documents"] + skipped.total()
    places, replaced = meta.get("places", {}), meta.get("replaced", 0)
    tally = Tally(rows=rows, skipped=skipped, places=places, replaced=replaced)
    return Known(meta["train_tokens"], meta["val_tokens"], True, tally)


def _in_shards(data: DataConfig) -> Known:
    manifest = read_manifest(corpus_folder(data))
    state, tally = held(data, manifest), Tally()
    for shard in manifest.prefix():
        skipped = Counter(shard.skipped)
        tally.add(Tally(False, shard.rows, skipped, shard.places, shard.replaced))
    if state.complete:
        return Known(state.train, state.val, True, tally)
    most = _most(data)
    limits = [limit for limit in (most, data.max_tokens) if limit is not None]
    return Known(min(limits, default=None), most, False, tally)


def _most(data: DataConfig) -> int | None:
    """Tokens that the files of a corpus cannot exceed: their bytes and a separator for each file;
    rows have more around their text than a separator."""
    if data.kind != "files" or data.tokenizer not in OF_BYTES or codec(data) != codec(DataConfig()):
        return None
    files = named_files(data)
    if any(compression_of(path.name) or text_format(path) == "parquet" for path in files):
        return None
    return _bytes(files) + len(files)


def _bytes(files: list[Path]) -> int:
    return sum(os.path.getsize(path) for path in files)


def refuse_left_out(data: DataConfig) -> None:
    """Raises ConfigError where data.on_bad_row=stop, and a planned corpus was prepared before and
    rows were left out."""
    if data.on_bad_row == "stop" and corpus_folder(data).exists():
        known(data).tally.refuse_stop()


def asks_for_more(data: DataConfig, there: Known) -> bool:
    """Whether `data.tokens` asks for more than a corpus in shards is known to have."""
    asked = data.tokens if is_sharded(data) else None
    return asked is not None and there.train is not None and there.train < asked


def refuse_too_few(data: DataConfig) -> None:
    """Raises ConfigError where `data.tokens` asks for more than a corpus in shards has."""
    there = known(data)
    if not asks_for_more(data, there):
        return
    assert data.tokens is not None
    has = "has" if there.exact else "has at most"
    less = f"data.tokens={there.train} or less" if there.exact else "a smaller one"
    raise ConfigError(
        "data.tokens",
        data.tokens,
        f"the corpus {has} {there.train:,} training tokens",
        f"type {less}, or leave it out: runs that need more read the corpus again",
    )
