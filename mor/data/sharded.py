"""A corpus in shards: what a run needs of it is prepared, more can be added at any time.

What is there is never changed, and the order of shards does not depend on how many are prepared,
so two studies that need different amounts share one folder.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ledger.errors import UserError
from ledger.files import read_json, sync_to_disk, write_json
from mor.config import ConfigError, DataConfig
from mor.data.build import TOKENIZER_FOLDER, Builder, make_shard, remove_leftovers
from mor.data.hub import HubListing, list_dataset
from mor.data.locks import locked_folder
from mor.data.look import refuse_no_room
from mor.data.manifest import (
    SHARDS,
    SOURCE,
    Origin,
    Shard,
    read_manifest,
    shard_file,
)
from mor.data.needs import Need, Prepared, held
from mor.data.origins import Origins, refuse_another_source
from mor.data.packed import Corpus, Meta, token_dtype
from mor.data.pieces import Sequence
from mor.data.progress import reporting
from mor.data.rows import read_texts
from mor.data.shards import DamagedShard, ShardFiles, ShardTokens, check_shard
from mor.data.sources import source_files
from mor.data.split import share
from mor.data.tally import Tally
from mor.data.texts import Text
from mor.data.tokenizer import FILE, kept_tokenizer, make_tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class How:
    """How a preparation runs; nothing of it changes a byte."""

    workers: int = 1
    progress: bool = True
    verify: bool = False  # read every shard that is there and compare its digest
    should_stop: Callable[[], bool] = lambda: False
    on_progress: Callable[[Prepared], None] = lambda there: None


HERE = How()


def prepare_shards(
    data: DataConfig, folder: Path, need: Need, how: How, check: Callable[[], object]
) -> Prepared:
    """Prepare what is missing of a need, and make damaged shards again.

    `check` is called before anything is made from the source, and raises where it is another one.
    Raises ConfigError for a corpus that cannot be had, does not fit on the disk, or has changed;
    PreparationStopped; OSError.
    """
    state = held(data, read_manifest(folder))
    if not how.verify and not state.missing(need) and not _wrong_sizes(data, folder):
        return state
    with locked_folder(folder), _without_leftovers(folder):
        damaged = _damaged(data, folder, how)
        state = held(data, read_manifest(folder))
        if not damaged and not state.missing(need):
            return state
        check()
        with _nothing_of_a_mistake(folder):
            return _prepare(data, folder, need, how, damaged)


def _prepare(
    data: DataConfig, folder: Path, need: Need, how: How, damaged: list[Shard]
) -> Prepared:
    (folder / SHARDS).mkdir(parents=True, exist_ok=True)
    _refuse_full(data, folder, need)
    if data.tokenizer != "train":
        _keep_tokenizer(data, folder, iter(()), how)
    places = _places(data, folder)
    origins = Origins(data, places)
    refuse_another_source(origins, folder, max(1, how.workers))
    sequence = Sequence(data, places, folder)
    if data.tokenizer == "train":
        _keep_tokenizer(data, folder, _training_texts(data, sequence), how)
    for shard in damaged:
        log.warning("shard %d of %s is damaged and is made again", shard.shard, folder)
    with reporting(f"preparing {data.name}", how.progress) as report:

        def on_shard(now: Prepared) -> None:
            share = min(1.0, now.train / need.train) if need.train else None
            report(share, now.train + now.val)
            how.on_progress(now)

        def origin_of(name: str) -> Origin | None:
            return origins.of([name]).get(name)

        workers = max(1, how.workers)
        builder = Builder(
            *(data, folder, sequence, workers), how.should_stop, on_shard, origin_of, damaged
        )
        return builder.build(need)


@contextlib.contextmanager
def _without_leftovers(folder: Path) -> Iterator[None]:
    """Of a preparation that was killed before, and of workers that this one ends."""
    remove_leftovers(folder)
    try:
        yield
    finally:
        remove_leftovers(folder)


@contextlib.contextmanager
def _nothing_of_a_mistake(folder: Path) -> Iterator[None]:
    """Leave no folder behind where settings were wrong before the first shard was made."""
    try:
        yield
    except UserError:
        if not read_manifest(folder).shards:
            shutil.rmtree(folder)
        raise


def open_shards(data: DataConfig, folder: Path, need: Need) -> Corpus:
    """The tokens that are there; the held-out ones up to the shard that completes `need.val`.

    Raises UserError for a complete corpus that lacks tokens for training or for validation.
    """
    manifest = read_manifest(folder)
    state, shards = held(data, manifest), manifest.prefix()
    if state.complete and not (state.train and state.val):
        raise _no_split(data, sum(s.rows for s in shards), state)
    until, found = 0, 0
    while until < len(shards) and (found < need.val or not need.val):
        found += shards[until].val_tokens
        until += 1
    held_out = shards[:until]
    dtype = token_dtype(data.vocab_size)
    repair = functools.partial(repair_shard, data, folder)
    train = ShardTokens(ShardFiles(folder, shards, dtype, repair), False, state.train)
    val = ShardTokens(ShardFiles(folder, held_out, dtype, repair), True)
    meta = Meta(
        fingerprint=str(data.fingerprint),
        tokenizer=data.tokenizer,
        vocab_size=data.vocab_size,
        separator=kept_tokenizer(folder).separator,
        dtype=dtype.name,
        train_tokens=len(train),
        val_tokens=len(val),
        train_documents=sum(s.train_documents for s in shards),
        val_documents=sum(s.val_documents for s in held_out),
        val_bytes=sum(s.val_bytes for s in held_out),
        skipped=dict(state.skipped),
    )
    return Corpus(folder, meta, train, val, data.window_tokens, state.complete)


def repair_shard(data: DataConfig, folder: Path, shard: Shard) -> None:
    """Make one damaged shard again. Raises UserError where its source is no longer the same."""
    with locked_folder(folder):
        try:
            check_shard(shard_file(folder, shard.shard), shard)
            return  # another process was quicker
        except DamagedShard:
            pass
        sequence = Sequence(data, _places(data, folder), folder)
        work = next(islice(iter(sequence), shard.shard, None))
        make_shard(work, data, folder, shard)


# -- what it is made of --------------------------------------------------------------------------


def _places(data: DataConfig, folder: Path) -> dict[str, str]:
    """Where each file of the corpus can be read, by its name in the listing."""
    if data.kind == "files":
        return {f"{file.digest}.{file.format}": str(file.path) for file in source_files(data)}
    kept = read_json(folder / SOURCE)
    listing = HubListing.from_dict(kept) if kept else list_dataset(data)
    if not kept:
        write_json(folder / SOURCE, listing.to_dict())
    return listing.places(data)


def _keep_tokenizer(data: DataConfig, folder: Path, texts: Iterable[Text], how: How) -> None:
    if data.tokenizer == "bytes" or (folder / FILE).exists():
        return
    with tempfile.TemporaryDirectory(prefix=TOKENIZER_FOLDER, dir=folder) as temporary:
        make_tokenizer(data, lambda: texts, Path(temporary), how.progress)
        for path in sorted(Path(temporary).iterdir()):  # the separator first
            sync_to_disk(path)
            os.rename(path, folder / path.name)
    sync_to_disk(folder)


def _training_texts(data: DataConfig, sequence: Sequence) -> Iterator[Text]:
    for work in sequence:
        for text in read_texts(work.source, data, Tally(), work.piece):
            if share(text) >= data.val_fraction:
                yield text


# -- damage --------------------------------------------------------------------------------------


def _wrong_sizes(data: DataConfig, folder: Path) -> list[Shard]:
    """Shards whose file is missing or has another size than its tokens."""
    width = token_dtype(data.vocab_size).itemsize
    return [
        shard
        for shard in read_manifest(folder).shards.values()
        if _size(shard_file(folder, shard.shard)) != shard.tokens * width
    ]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _damaged(data: DataConfig, folder: Path, how: How) -> list[Shard]:
    """The shards that are not as they were written: by their sizes, or by their digests."""
    found = _wrong_sizes(data, folder)
    if not how.verify:
        return found
    left = [shard for shard in read_manifest(folder).shards.values() if shard not in found]
    with ThreadPoolExecutor(max(1, how.workers)) as pool:
        checks = pool.map(lambda shard: _is_damaged(folder, shard), left)
        return found + [shard for shard, bad in zip(left, checks, strict=True) if bad]


def _is_damaged(folder: Path, shard: Shard) -> bool:
    try:
        check_shard(shard_file(folder, shard.shard), shard)
    except DamagedShard:
        return True
    return False


# -- limits --------------------------------------------------------------------------------------


def _refuse_full(data: DataConfig, folder: Path, need: Need) -> None:
    """Raises ConfigError where the missing tokens do not fit on the disk."""
    refuse_no_room(data, held(data, read_manifest(folder)).missing(need))


def _no_split(data: DataConfig, rows: int, state: Prepared) -> ConfigError:
    if not state.train and not state.val:
        place = str(data.dataset) if data.kind == "hub" else f"[{','.join(data.paths)}]"
        setting = "data.dataset" if data.kind == "hub" else "data.paths"
        return ConfigError(setting, place, "holds no text", "name a corpus that does")
    lacking = "training" if state.val else "validation"
    return ConfigError(
        "data.val_fraction",
        data.val_fraction,
        f"leaves no {lacking} text among {rows:,} documents",
        "type data.val_fraction=0.05 or the like",
    )
