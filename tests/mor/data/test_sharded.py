"""A corpus in shards: the same bytes and rows however it was prepared, and damage found."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import UserError
from mor.config import ConfigError, DataConfig, to_dict
from mor.data.batches import Batches
from mor.data.fingerprint import fingerprint
from mor.data.manifest import read_manifest, shard_file
from mor.data.needs import Need, need_of_rows, prepared
from mor.data.packed import Corpus
from mor.data.prepare import prepare
from mor.data.sharded import How

SEQ_LEN, BATCH = 32, 8
WINDOW = 64 * SEQ_LEN


@pytest.fixture
def source(tmp_path: Path) -> list[Path]:
    """Twelve files, parquet and JSON lines, of which each is several pieces."""
    paths = []
    for i in range(12):
        texts = [f"file {i} document {j} " + "words and more " * ((i * j) % 23) for j in range(40)]
        paths.append(tmp_path / f"part-{i:02d}.{'parquet' if i % 2 else 'jsonl'}")
        if i % 2:
            pq.write_table(pa.table({"text": texts}), paths[-1], row_group_size=5)
        else:
            paths[-1].write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return paths


@pytest.fixture
def data(
    files: Callable[..., DataConfig], source: list[Path], monkeypatch: pytest.MonkeyPatch
) -> DataConfig:
    monkeypatch.setattr("mor.data.pieces.MB", 2000)
    return files(*source, sharded=True, shard_mb=1, window_tokens=WINDOW)


def ready(data: DataConfig, tokens: int = 10**9, **how: object) -> Corpus:
    return prepare(replace(data, tokens=float(tokens)), False, how=How(**how))  # type: ignore[arg-type]


def shards(corpus: Corpus) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (corpus.folder / "shards").iterdir()}


def rows_of(corpus: Corpus, steps: int) -> np.ndarray:
    batches = Batches(corpus, SEQ_LEN, BATCH, seed=1)
    return np.stack([batches.batch(step)[0] for step in range(steps)])


def elsewhere(data: DataConfig, tmp_path: Path, name: str) -> DataConfig:
    return replace(data, cache_dir=str(tmp_path / name))


def test_a_bad_file_is_refused_by_other_processes(tmp_path: Path, files) -> None:
    for i in range(4):
        (tmp_path / f"{i}.txt").write_text(f"text {i} " * 20)
    (tmp_path / "bad.txt").write_bytes(b"\0")
    data = files(tmp_path / "*.txt", sharded=True)
    with pytest.raises(ConfigError, match=r"bad\.txt") as caught:
        prepare(data, progress=False, how=How(workers=2))
    assert caught.value.setting == "data.paths"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (type(caught.value), str(caught.value))


def test_every_document_once(data: DataConfig, source: list[Path]) -> None:
    corpus = ready(data)
    assert corpus.complete
    manifest = read_manifest(corpus.folder)
    assert len(manifest.shards) > len(source)
    texts = []
    for path in source:
        if path.suffix == ".parquet":
            texts += pq.read_table(path)["text"].to_pylist()
        else:
            texts += [json.loads(line)["text"] for line in path.read_text().splitlines()]
    decode = corpus.tokenizer().decode
    train, val = (
        [decode(part) for part in np.split(tokens[:], np.flatnonzero(tokens[:] == 255) + 1)[:-1]]
        for tokens in (corpus.train, corpus.val)
    )
    assert sorted(train + val) == sorted(texts)
    assert not set(train) & set(val)
    assert (len(train), len(val)) == (corpus.meta.train_documents, corpus.meta.val_documents)
    assert corpus.meta.val_bytes == sum(len(text.encode()) for text in val)


@pytest.mark.parametrize("tokenizer", ["bytes", "train"])
def test_workers_change_no_byte(data: DataConfig, tmp_path: Path, tokenizer: str) -> None:
    data = replace(data, tokenizer=tokenizer, vocab_size=300)
    one = ready(data)
    three = ready(elsewhere(data, tmp_path, "three"), workers=3)
    assert shards(one) == shards(three)
    assert one.folder.name == three.folder.name


def test_preparing_more_changes_no_row(data: DataConfig, tmp_path: Path) -> None:
    need = need_of_rows(data, SEQ_LEN, 20 * BATCH, 200)
    small = prepare(data, False, need)
    assert not small.complete
    assert small.meta.train_tokens >= need.train
    held_out = [rows.tolist() for rows, _ in Batches(small, SEQ_LEN, 4, 0).validation(200)]
    before = rows_of(small, 20)
    part = shards(small)
    ready(data)
    again = prepare(data, False, need)
    assert again.complete
    assert np.array_equal(rows_of(again, 20), before)
    assert [r.tolist() for r, _ in Batches(again, SEQ_LEN, 4, 0).validation(200)] == held_out
    assert again.meta.val_bytes == small.meta.val_bytes
    assert part.items() <= shards(again).items()
    whole = ready(elsewhere(data, tmp_path, "whole"))
    assert shards(whole) == shards(again)


def test_a_run_that_reads_on_prepares_more(data: DataConfig) -> None:
    def more(rows: int) -> Corpus:
        return prepare(data, False, need_of_rows(data, SEQ_LEN, rows, 100))

    first = more(BATCH)
    batches = Batches(first, SEQ_LEN, BATCH, 1, more)
    found = np.stack([batches.batch(step)[0] for step in range(40)])
    assert batches.corpus.meta.train_tokens > first.meta.train_tokens
    assert np.array_equal(found, rows_of(ready(data), 40))
    with pytest.raises(UserError, match=r"data\.tokens="):
        Batches(first, SEQ_LEN, BATCH, 1).batch(40)


def test_rows_are_shuffled_inside_windows_and_read_once(data: DataConfig) -> None:
    corpus = ready(data)
    batches = Batches(corpus, SEQ_LEN, BATCH, seed=3)
    n = batches.n_rows
    epochs = batches.order.rows(0, 2 * n)
    assert sorted(epochs[:n]) == sorted(epochs[n:]) == list(range(n))
    assert not np.array_equal(epochs[:n], epochs[n:])
    window = WINDOW // SEQ_LEN
    for start in range(0, n, window):
        part = epochs[start : min(start + window, n)]
        assert sorted(part) == list(range(start, start + len(part)))
        assert len(part) < 8 or not np.array_equal(part, np.sort(part))


def test_max_tokens_is_the_end_of_the_corpus(data: DataConfig) -> None:
    capped = ready(replace(data, max_tokens=5000))
    assert capped.complete
    assert len(capped.train) == 5000
    whole = ready(data)
    assert np.array_equal(capped.train[:5000], whole.train[:5000])
    assert capped.folder != whole.folder


@pytest.mark.parametrize("harm", ["flipped", "truncated", "gone"])
@pytest.mark.parametrize("finder", ["reading", "prepare"])
def test_a_damaged_shard_is_made_again_alone(data: DataConfig, harm: str, finder: str) -> None:
    corpus = ready(data)
    whole, before = rows_of(corpus, 30), shards(corpus)
    stamps = {path.name: path.stat().st_mtime_ns for path in (corpus.folder / "shards").iterdir()}
    path = shard_file(corpus.folder, 3)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(content if harm == "flipped" else content[:-1])
    if finder == "prepare":
        ready(data, verify=True)
        assert shards(corpus) == before
    assert np.array_equal(rows_of(ready(data), 30), whole)
    assert shards(corpus) == before
    changed = {
        path.name
        for path in (corpus.folder / "shards").iterdir()
        if path.stat().st_mtime_ns != stamps[path.name]
    }
    assert changed == {path.name}


def test_a_source_that_changed_is_refused(data: DataConfig, source: list[Path]) -> None:
    corpus = ready(data)
    planned = replace(data, fingerprint=corpus.folder.name.rpartition("-")[2])
    source[2].write_text(source[2].read_text().replace("words", "other"))
    assert rows_of(ready(planned), 5).size  # what is there is enough
    shard_file(corpus.folder, 0).unlink()
    with pytest.raises(UserError, match=r"data\.fingerprint="):
        ready(replace(data, fingerprint="0" * 16))
    with pytest.raises(UserError):
        ready(planned, verify=True)


def test_damage_beyond_what_is_needed_is_made_again(data: DataConfig) -> None:
    corpus = ready(data, 6000)
    before, last = shards(corpus), max(read_manifest(corpus.folder).shards)
    shard_file(corpus.folder, last).unlink()
    ready(data, 100, verify=True)
    assert shards(corpus) == before


def test_a_disk_that_is_too_small_is_said_before(
    data: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def there() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    folder = ready(data, 2000).folder
    before = there()
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": 1000})())
    with pytest.raises(ConfigError, match=r"data.cache_dir=.* GB are free"):
        ready(data)
    assert there() == before
    assert ready(data, 2000).meta.train_tokens
    with pytest.raises(ConfigError, match=r"data.cache_dir=.* GB are free"):
        ready(replace(data, name="other"))
    assert not list(folder.parent.glob("other-*"))


def test_a_disk_that_fills_up_keeps_whole_shards(data: DataConfig) -> None:
    def full(there: object) -> None:
        if len(read_manifest(folder).shards) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    folder = Path(data.cache_dir) / f"mine-{fingerprint(data)}"
    with pytest.raises(ConfigError, match="shards that are whole are kept"):
        ready(data, on_progress=full)
    assert len(read_manifest(folder).shards) == 3
    assert ready(data).complete


def test_killed_and_typed_again(data: DataConfig, tmp_path: Path) -> None:
    code = (
        "import sys, time; from mor.config import *; from mor.data import build, pieces, prepare\n"
        "from mor.data.sharded import How\n"
        "pieces.MB = 2000\n"
        "if __name__ == '__main__':\n"
        f"    data = from_dict(DataConfig, {to_dict(replace(data, tokens=1e9))!r})\n"
        "    add = build.ManifestWriter.add\n"
        "    def slow(self, shard): add(self, shard); print('x', flush=True); time.sleep(0.05)\n"
        "    build.ManifestWriter.add = slow\n"
        "    prepare.prepare(data, False, how=How(workers=2))\n"
    )
    script = tmp_path / "prepare.py"
    script.write_text(code)
    folder = None
    for kills in range(3):
        process = subprocess.Popen(
            [sys.executable, script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
        )
        assert process.stdout is not None
        for _ in range(3 + kills):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        [folder] = Path(data.cache_dir).glob("mine-*/")
        kept = len(read_manifest(folder).shards)
        assert kept >= 3 * (kills + 1)
    assert folder is not None
    with open(folder / "manifest.jsonl", "ab") as file:
        file.write(b'{"shard": 7, "na')  # cut off by a crash
    again = ready(data)
    assert shards(again).items() >= shards(ready(elsewhere(data, tmp_path, "calm"))).items()
    while list((folder / "shards").glob(".*.tmp")):  # of a worker that outlives its parent a moment
        time.sleep(0.1)
    assert set(shards(again)) == {f"{n:06d}.bin" for n in read_manifest(folder).shards}


def test_what_a_killed_preparation_left_is_removed(data: DataConfig) -> None:
    """Also where its number is that of a living process now; what that one writes is left alone."""
    corpus = ready(data, 3000)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        pass
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    there, folder = corpus.folder, corpus.folder / "shards"
    dead = [
        folder / f".000090.bin.{ended.pid}.tmp",
        folder / f".000091.bin.{living.pid}.tmp",
        there / f".source.json.{ended.pid}.tmp",
    ]
    alive = folder / f".000092.bin.{living.pid}.tmp"
    for path in (*dead, alive):
        path.write_bytes(b"half")
    (there / ".tokenizer-killed").mkdir()
    os.utime(dead[1], (time.time() - 1000,) * 2)
    ready(data)
    assert [path for path in dead if path.exists()] == []
    assert alive.exists()
    assert not (there / ".tokenizer-killed").exists()
    living.communicate(b"\n")
    ready(data, verify=True)  # nothing is missing
    assert set(shards(corpus)) == {f"{n:06d}.bin" for n in read_manifest(there).shards}


def test_a_preparation_that_is_stopped_leaves_nothing_behind(data: DataConfig) -> None:
    def fail(there: object) -> None:
        raise OSError("stopped")

    with pytest.raises(OSError, match="stopped"):
        ready(data, workers=2, on_progress=fail)
    [folder] = Path(data.cache_dir).glob("mine-*/")
    assert not list(folder.rglob(".*"))


def test_what_is_prepared_is_known_without_reading_it(data: DataConfig) -> None:
    corpus = ready(data, 3000)
    planned = replace(data, fingerprint=corpus.folder.name.rpartition("-")[2])
    found = prepared(planned)
    assert found.train == corpus.meta.train_tokens
    assert found.missing(Need(3000)) == 0
    assert found.missing(Need(found.train + 7)) == 7
    assert prepared(replace(planned, name="none")).missing(Need(5, 5)) >= 5
