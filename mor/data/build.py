"""Making shards: pieces of the source to token files, by one process or several.

The bytes of a shard depend on its piece alone, so they are the same for every number of workers and
after every restart. The parent hands out pieces in the order of the sequence and writes the
manifest; a worker writes one file under a temporary name and renames it. What was in work when
everything was killed is made again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from pathlib import Path

from ledger.processes import start_time
from mor.config import DataConfig, UserError
from mor.data.manifest import (
    SHARDS,
    Manifest,
    ManifestWriter,
    Origin,
    Shard,
    read_manifest,
    shard_file,
)
from mor.data.needs import Need, Prepared, held
from mor.data.packed import token_dtype
from mor.data.pieces import Work
from mor.data.rows import HubFailed, read_texts
from mor.data.split import share
from mor.data.tally import Tally
from mor.data.texts import size_of
from mor.data.tokenizer import Tokenizer, batches_of, encoded, kept_tokenizer

RETRIES_S = (1.0, 4.0, 16.0, 60.0)  # waits before a piece of a hub that fails is read again
THREADS = "TOKENIZERS_PARALLELISM"
HELD_OUT = 2**24  # bytes of held-out tokens of a shard in memory, until the others are written
KILLED_S = 10.0  # that a killed worker is given to end
TICK_S = 2.0  # the clocks of processes and of files agree to this
TOKENIZER_FOLDER = ".tokenizer-"
LOOK_S = 0.5  # between looks at a request to stop


class PreparationStopped(Exception):
    """The preparation was asked to stop; the shards that are whole are kept."""


# -- one shard ---------------------------------------------------------------------------------


def make_shard(work: Work, data: DataConfig, folder: Path, before: Shard | None = None) -> Shard:
    """Write one shard. Raises ConfigError for a source that cannot be read, OSError; UserError,
    and leaves the file as it is, where the shard would not be what it was `before`."""
    for pause in RETRIES_S:
        try:
            return _write(work, data, folder, before)
        except HubFailed:
            time.sleep(pause)
    return _write(work, data, folder, before)


def _write(work: Work, data: DataConfig, folder: Path, before: Shard | None) -> Shard:
    path = shard_file(folder, work.shard)
    temporary = path.with_name(f".{path.name}{_ending(os.getpid())}")
    dtype = token_dtype(data.vocab_size)
    tokenizer = _tokenizer(folder)
    tally = Tally(stop=data.on_bad_row == "stop")
    counts = {"train_tokens": 0, "val_tokens": 0, "train_documents": 0, "val_documents": 0,
              "train_bytes": 0, "val_bytes": 0}  # fmt: skip
    digest = hashlib.sha256()
    try:
        with (
            open(temporary, "wb") as file,
            tempfile.SpooledTemporaryFile(HELD_OUT, dir=str(path.parent)) as held_out,
        ):

            def write(content: bytes) -> None:
                digest.update(content)
                file.write(content)

            for texts in batches_of(read_texts(work.source, data, tally, work.piece)):
                for text, parts in encoded(tokenizer, texts):
                    split = "val" if share(text) < data.val_fraction else "train"
                    for tokens in parts:
                        content = tokens.astype(dtype).tobytes()
                        held_out.write(content) if split == "val" else write(content)
                        counts[f"{split}_tokens"] += len(tokens)
                    counts[f"{split}_documents"] += 1
                    counts[f"{split}_bytes"] += size_of(text)
            held_out.seek(0)
            while content := held_out.read(HELD_OUT):
                write(content)
            file.flush()
            os.fsync(file.fileno())
        if before is not None and digest.hexdigest() != before.sha256:
            raise _changed(data, before)
        os.rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return Shard(
        shard=work.shard,
        name=work.name,
        first=work.piece.first,
        last=work.piece.last,
        rows=tally.rows,
        sha256=digest.hexdigest(),
        skipped=dict(tally.skipped),
        places=tally.places,
        replaced=tally.replaced,
        **counts,
    )


def _ending(pid: int) -> str:
    return f".{pid}.tmp"


def remove_leftovers(folder: Path) -> None:
    """Remove what a preparation that was killed was writing. For the holder of the folder's lock:
    others who write there are workers that outlive their parent for a moment."""
    for path in (*folder.glob(".*.tmp"), *(folder / SHARDS).glob(".*.tmp")):
        with contextlib.suppress(OSError, ValueError):
            began, written = start_time(int(path.name.split(".")[-2])), path.stat().st_mtime
            if began is None or began > written + TICK_S:  # the number is another's now
                path.unlink()
    for made in folder.glob(f"{TOKENIZER_FOLDER}*"):  # by the holder of the lock only
        shutil.rmtree(made, ignore_errors=True)


def _changed(data: DataConfig, shard: Shard) -> UserError:
    return UserError(
        f"data={data.name}: {shard.name} is not what it was when shard {shard.shard} was "
        "prepared, so the tokens of earlier runs cannot be made again; restore the file, or "
        "type data.name=<another name> to prepare the new text beside it"
    )


@functools.lru_cache(maxsize=4)
def _tokenizer(folder: Path) -> Tokenizer:
    return kept_tokenizer(folder)


# -- all that are needed -----------------------------------------------------------------------


@dataclass
class Builder:
    """Makes the shards of a corpus that are missing, until a need is met or there are no more.

    A shard that is damaged counts as missing, and keeps its line in the manifest: until it is made
    again, with the same bytes, that line is the only record of what it was.
    """

    data: DataConfig
    folder: Path
    sequence: Iterable[Work]
    workers: int = 1
    should_stop: Callable[[], bool] = lambda: False
    on_shard: Callable[[Prepared], None] = lambda prepared: None
    origin_of: Callable[[str], Origin | None] = lambda name: None  # what a file of the source is
    damaged: Sequence[Shard] = ()

    def build(self, need: Need) -> Prepared:
        """Returns what is there at the end. Raises what `make_shard` raises, PreparationStopped."""
        self._writer = ManifestWriter(self.folder)
        manifest = read_manifest(self.folder)
        self._before = manifest.dropped | {shard.shard: shard for shard in self.damaged}
        self._known = {n: s for n, s in manifest.shards.items() if n not in self._before}
        self._total = manifest.total
        self._read = {name for name, origin in manifest.origins.items() if origin.sha256}
        if self._left(need):
            looking = ThreadPoolExecutor(self.workers)
            try:
                with _pool(self.workers, self.folder / SHARDS) as pool:
                    self._carry_out(pool, looking, need)
            finally:
                looking.shutdown(wait=False, cancel_futures=True)
        return self._state()

    def _state(self) -> Prepared:
        return held(self.data, Manifest(self._known, self._total))

    def _left(self, need: Need) -> bool:
        return bool(self._state().missing(need) or self._before.keys() - self._known.keys())

    def _is_wanted(self, work: Work, need: Need) -> bool:
        if work.shard in self._known:
            return False
        return work.shard in self._before or self._state().missing(need) > 0

    def _carry_out(self, pool: Executor, looking: Executor, need: Need) -> None:
        origins: dict[str, Future[Origin | None]] = {}  # of the files in work
        works = iter(self.sequence)
        ahead: Work | None = None  # the next one that is not there
        running: dict[Future[Shard], Work] = {}
        while self._left(need):
            if self.should_stop():
                raise PreparationStopped
            while len(running) < self.workers:
                ahead = ahead or next((w for w in works if self._is_wanted(w, need)), None)
                if ahead is None or (running and self._enough(ahead.shard, need)):
                    break
                if ahead.name not in self._read | origins.keys():
                    origins[ahead.name] = looking.submit(self.origin_of, ahead.name)
                before = self._before.get(ahead.shard)
                running[pool.submit(make_shard, ahead, self.data, self.folder, before)] = ahead
                ahead = None
            if not running:  # the sequence has ended
                self._total = len(self._known)
                self._writer.complete(self._total)
                break
            for future in wait(running, LOOK_S, FIRST_COMPLETED).done:
                del running[future]
                shard = future.result()
                if shard.name in origins:
                    self._read.add(shard.name)
                    origin = origins.pop(shard.name).result()
                    self._writer.read_from({shard.name: origin} if origin else {})
                self._take(shard)

    def _enough(self, upto: int, need: Need) -> bool:
        """Whether the shards before `upto`, those in work included, are likely to be enough."""
        if not self._known or upto in self._before:
            return False
        mean = {
            split: sum(getattr(s, f"{split}_tokens") for s in self._known.values())
            for split in ("train", "val")
        }
        likely = {split: upto * tokens / len(self._known) for split, tokens in mean.items()}
        return likely["train"] > need.train and likely["val"] > need.val

    def _take(self, shard: Shard) -> None:
        self._known[shard.shard] = shard
        self._writer.add(shard)
        self.on_shard(self._state())


class _Here(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, call, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def _pool(workers: int, shards: Path) -> Iterator[Executor]:
    with _one_thread_each():
        if workers == 1:
            yield _Here()
        else:
            with _processes(workers, shards) as pool:
                yield pool


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """A worker is a core: `tokenizers` starts no threads in it."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before


@contextlib.contextmanager
def _processes(workers: int, shards: Path) -> Iterator[Executor]:
    # spawned, not forked: this process may have threads, or a GPU
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _begin, (os.getpid(), shards)
    )
    try:
        yield pool
    except BaseException:
        started = list((getattr(pool, "_processes", None) or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)  # forgets them
        for process in started:
            process.kill()  # what it was at is made again
            process.join(KILLED_S)
        raise
    pool.shutdown(cancel_futures=True)


def _begin(parent: int, shards: Path) -> None:
    """Set up a worker: Ctrl-C is its parent's, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        for path in shards.glob(f".*{_ending(os.getpid())}"):
            path.unlink(missing_ok=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
