"""Tokenise documents and write them end to end into the two token files."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mor.config import DataConfig
from mor.data.corpus import documents
from mor.data.packed import Meta, TokenWriter
from mor.data.progress import reporting
from mor.data.split import Split, no_split, share
from mor.data.texts import Text, size_of
from mor.data.tokenizer import batches_of, encoded, make_tokenizer

log = logging.getLogger(__name__)


def pack(data: DataConfig, fingerprint: str, folder: Path, progress: bool) -> Meta:
    """Write train.bin, val.bin and the tokenizer into `folder`; what comes back describes them.

    Raises ConfigError for a corpus that cannot be read or split, OSError if the disk is full.
    """
    tokenizer = make_tokenizer(data, lambda: training_texts(data), folder, progress)
    split = Split(data.val_fraction)
    with (
        closing(TokenWriter(folder / "train.bin", data.vocab_size)) as train,
        closing(TokenWriter(folder / "val.bin", data.vocab_size)) as val,
        reporting(f"preparing {data.name}", progress) as report,
    ):
        source = documents(data)
        limit = math.inf if data.max_tokens is None else data.max_tokens
        for texts in batches_of(source.texts):
            if train.tokens >= limit:
                break
            for text, parts in encoded(tokenizer, texts):
                held_out = split.holds_out(text)
                write = val if held_out else train
                for number, tokens in enumerate(parts):
                    if not held_out:
                        tokens = tokens[: int(min(limit - train.tokens, len(tokens)))]
                    write.extend(tokens) if number else write.add(tokens, size_of(text))
                    if train.tokens >= limit:
                        break
                if train.tokens >= limit:
                    break
            read = (train.bytes + val.bytes) / source.size if source.size else 0.0
            report(max(read, train.tokens / limit) or None, train.tokens + val.tokens)
    if source.tally.is_bad:
        log.warning("%s: %s", data.name, source.tally.report())
    if not train.tokens or not val.tokens:
        raise no_split(data, split, train.documents, val.documents)
    return Meta(
        fingerprint=fingerprint,
        tokenizer=data.tokenizer,
        vocab_size=data.vocab_size,
        separator=tokenizer.separator,
        dtype=train.dtype.name,
        train_tokens=train.tokens,
        val_tokens=val.tokens,
        train_documents=train.documents,
        val_documents=val.documents,
        val_bytes=val.bytes,
        skipped=dict(source.tally.skipped),
        places=dict(source.tally.places),
        replaced=source.tally.replaced,
    )


def training_texts(data: DataConfig) -> Iterator[Text]:
    """The documents of a corpus that are not held out."""
    return (text for text in documents(data).texts if share(text) >= data.val_fraction)
