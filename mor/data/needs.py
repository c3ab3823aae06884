"""How many tokens of a sharded corpus a run reads, and how many are there. Standard library only.

Rows are shuffled inside windows of `data.window_tokens`, so a run needs whole windows; it reads its
validation tokens from the beginning of the held-out ones. Neither depends on what else is prepared.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mor.config import ConfigError, DataConfig
from mor.data.fingerprint import is_sharded
from mor.data.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class Need:
    """Tokens that have to be prepared, unless the corpus has fewer."""

    train: int = 0
    val: int = 0

    def __or__(self, other: Need) -> Need:
        return Need(max(self.train, other.train), max(self.val, other.val))


def need_of_rows(data: DataConfig, seq_len: int, rows: int, val_tokens: int) -> Need:
    """What `rows` training rows and so many validation tokens take; nothing of a packed corpus.

    Raises ConfigError where a window holds not a single row.
    """
    if not is_sharded(data):
        return Need()
    windows = math.ceil(rows / window_rows(data, seq_len))
    val = math.ceil(val_tokens / seq_len) * seq_len + 1
    return Need(windows * window_rows(data, seq_len) * seq_len + 1, val)


def need_of_tokens(data: DataConfig, tokens: float) -> Need:
    """What `data.tokens` asks for: whole windows."""
    windows = math.ceil(tokens / data.window_tokens)
    return Need(windows * data.window_tokens + 1)


def window_rows(data: DataConfig, seq_len: int) -> int:
    """Rows that are shuffled together. Raises ConfigError for a window that holds none."""
    rows = data.window_tokens // seq_len
    if rows < 1:
        raise ConfigError(
            "data.window_tokens",
            data.window_tokens,
            f"less than a row of train.seq_len={seq_len}",
            f"type data.window_tokens={max(seq_len, 268_435_456)}",
        )
    return rows


@dataclass(frozen=True)
class Prepared:
    """What is there of a sharded corpus."""

    train: int
    val: int
    complete: bool  # the corpus has no more
    skipped: Counter[str]

    def missing(self, need: Need) -> int:
        """Training tokens that are still to be prepared, roughly; 0: nothing is missing."""
        if self.complete:
            return 0
        per_val = self.train / self.val if self.val else 0.0
        for_val = max(0, need.val - self.val) * per_val
        return math.ceil(max(need.train - self.train, for_val, need.val > self.val))


def bytes_per_token(vocab_size: int) -> int:
    """Of the smallest type that holds every token number, as tokens are kept."""
    return 1 if vocab_size <= 2**8 else 2 if vocab_size <= 2**16 else 4


def prepared(data: DataConfig) -> Prepared:
    """What the cache holds of a planned corpus (data.fingerprint)."""
    return held(data, read_manifest(corpus_folder(data)))


def held(data: DataConfig, manifest: Manifest) -> Prepared:
    prefix = manifest.prefix()
    train = sum(shard.train_tokens for shard in prefix)
    complete = manifest.complete
    if data.max_tokens is not None and train >= data.max_tokens:
        train, complete = data.max_tokens, True
    skipped: Counter[str] = Counter()
    for shard in prefix:
        skipped.update(shard.skipped)
    return Prepared(train, sum(shard.val_tokens for shard in prefix), complete, skipped)


def corpus_folder(data: DataConfig) -> Path:
    """Where the tokens of a planned corpus (data.fingerprint) lie."""
    return Path(data.cache_dir).expanduser() / f"{data.name}-{data.fingerprint}"
