"""A copy of a hub repository that changed between two preparations of one corpus."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mor.config import ConfigError, DataConfig, UserError
from mor.data.manifest import MANIFEST, Manifest, Origin, read_manifest, shard_file
from mor.data.origins import refuse_another_copy
from mor.data.prepare import prepare
from mor.data.sharded import How

FILES, TEXTS = 4, 40


def write(mirror: Path, file: int, before: str = "") -> None:
    texts = [f"{before}file {file} row {row} " + "some words " * 9 for row in range(TEXTS)]
    table = pa.table({"text": texts})
    pq.write_table(table, mirror / f"train-{file}.parquet", row_group_size=5, compression=None)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    for file in range(FILES):
        write(folder, file)
    return folder


@pytest.fixture
def data(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    monkeypatch.setattr("mor.data.pieces.MB", 1000)
    return DataConfig(
        *("copy", "hub"), dataset="o/corpus", mirror=str(mirror), val_fraction=0.2,
        cache_dir=str(tmp_path / "cache"), shard_mb=1, window_tokens=1000,
    )  # fmt: skip


def ready(data: DataConfig, tokens: float, **how: object) -> Path:
    return prepare(replace(data, tokens=tokens), False, how=How(**how)).folder  # type: ignore[arg-type]


def state(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def without_origins(folder: Path) -> None:
    lines = (folder / MANIFEST).read_text().splitlines(keepends=True)
    (folder / MANIFEST).write_text("".join(line for line in lines if "origins" not in line))


def known_files(manifest: Manifest) -> set[str]:
    return {name for name, origin in manifest.origins.items() if origin.sha256}


CHANGES: dict[str, Callable[[Path, int], None]] = {
    "longer": lambda mirror, file: write(mirror, file, "CHANGED "),
    "as long": lambda mirror, file: (mirror / f"train-{file}.parquet").write_bytes(
        (mirror / f"train-{file}.parquet").read_bytes().replace(b"some", b"more")
    ),
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("change", CHANGES)
def test_no_shard_is_made_from_a_copy_that_changed(
    data: DataConfig, mirror: Path, change: str, workers: int
) -> None:
    folder = ready(data, 3000, workers=workers)
    manifest = read_manifest(folder)
    assert not manifest.complete
    assert known_files(manifest) == {shard.name for shard in manifest.shards.values()}
    assert len(manifest.origins) == FILES  # the sizes of all that were cut
    before = state(folder)
    for file in range(FILES):
        CHANGES[change](mirror, file)
    with pytest.raises(ConfigError) as caught:
        ready(data, 10**6, workers=workers)
    assert caught.value.setting == "data.mirror"
    assert state(folder) == before
    with pytest.raises(ConfigError):
        ready(data, 10**6, workers=workers)
    ready(data, 3000)  # what is there is enough
    planned = replace(data, fingerprint=folder.name.rpartition("-")[2])
    with pytest.raises(ConfigError):
        refuse_another_copy(planned, folder)


def test_a_file_that_was_cut_only_is_known_by_its_size(data: DataConfig, mirror: Path) -> None:
    folder = ready(data, 1000)
    unread = set(read_manifest(folder).origins) - known_files(read_manifest(folder))
    assert unread
    for name in unread:
        write(mirror, int(name[6]), "CHANGED ")
    with pytest.raises(ConfigError):
        ready(data, 10**6)


def test_the_same_files_elsewhere_are_the_same(data: DataConfig, mirror: Path, tmp_path) -> None:
    folder = ready(data, 3000)
    moved = mirror.rename(tmp_path / "moved")
    for path in moved.iterdir():
        os.utime(path, (time.time(), time.time()))
    ready(replace(data, mirror=str(moved)), 10**6)
    assert read_manifest(folder).complete


def test_a_manifest_of_before_goes_on(data: DataConfig) -> None:
    whole = state(ready(replace(data, cache_dir=data.cache_dir + "2"), 10**6))
    folder = ready(data, 3000)
    without_origins(folder)
    assert not read_manifest(folder).origins
    ready(data, 10**6)
    again = state(folder)
    assert {n: c for n, c in again.items() if n != MANIFEST} == {
        n: c for n, c in whole.items() if n != MANIFEST
    }
    assert known_files(read_manifest(folder))


@pytest.mark.parametrize("noted", [False, True])
def test_damage_that_cannot_be_made_good_is_refused_every_time(
    data: DataConfig, mirror: Path, noted: bool
) -> None:
    """Also where the files of the source are not known, as of older versions."""
    folder = ready(data, 10**6)
    without_origins(folder)
    whole = state(folder)
    path = shard_file(folder, 0)
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    if noted:  # as older versions did, which forgot the digest so
        with open(folder / MANIFEST, "a") as file:
            file.write('{"without": 0}\n')
    before = state(folder)
    for file in range(FILES):
        CHANGES["as long"](mirror, file)
    for workers in (1, 1, 2):
        with pytest.raises(UserError, match="shard 0 "):
            ready(data, 10**6, verify=True, workers=workers)
        assert state(folder) == before
    if not noted:
        with pytest.raises(UserError, match="shard 0 "):
            prepare(data, False).train[:10]
        assert state(folder) == before
    for file in range(FILES):
        write(mirror, file)
    ready(data, 10**6, verify=True)
    assert path.read_bytes() == whole[f"shards/{path.name}"]


def test_what_may_be_one_file() -> None:
    assert Origin(3, "a").may_be(Origin(3))
    assert Origin(3).may_be(Origin(3, "a"))
    assert not Origin(3, "a").may_be(Origin(3, "b"))
    assert not Origin(3).may_be(Origin(4, "a"))
