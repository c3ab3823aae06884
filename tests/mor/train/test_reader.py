"""A checkpoint that was made to run code is refused: nothing in it is called."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from ledger.damage import META, file_digest, sealed
from mor.flops import Routed
from mor.train import checkpoint
from mor.train.checkpoint import CorruptCheckpoint, Progress
from mor.train.reader import Reader


class Calls:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def written(path: Path) -> Path:
    checkpoint.save(path, {"model/w": torch.arange(6.0)}, Progress(1, 2.0, Routed(3.0, (), ())))
    return path


def reseal(path: Path, index: object) -> None:
    """Another index, with digests that fit it, as an attacker would."""
    (path / ".metadata").write_bytes(pickle.dumps(index))
    meta = json.loads((path / META).read_text())
    del meta["digest"]
    meta["files"][".metadata"] = file_digest(path / ".metadata")
    meta["sizes"][".metadata"] = (path / ".metadata").stat().st_size
    (path / META).write_text(json.dumps(sealed(meta)))


def read(path: Path) -> torch.Tensor:
    into = {"model/w": torch.zeros(6)}
    checkpoint.load(path, into)
    return into["model/w"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_our_own_are_read(tmp_path, dtype):
    tensor = torch.arange(6).to(dtype)
    checkpoint.save(tmp_path / "c", {"w": tensor}, Progress(1, 2.0, Routed(3.0, (), ())))
    into = {"w": torch.zeros(6, dtype=dtype)}
    checkpoint.load(tmp_path / "c", into)
    assert torch.equal(into["w"], tensor)


def test_no_function_of_an_index_is_called(tmp_path):
    path = written(tmp_path / "c")
    assert torch.equal(read(path), torch.arange(6.0))
    reseal(path, Calls(tmp_path / "ran"))
    with pytest.raises(CorruptCheckpoint):
        read(path)
    assert not (tmp_path / "ran").exists()


def test_an_entry_that_would_be_unpickled_and_a_file_elsewhere_are_refused(tmp_path):
    path = written(tmp_path / "c")
    index = Reader(path).read_metadata()
    entries = dict(index.state_dict_metadata)
    index.state_dict_metadata["model/w"] = BytesStorageMetadata()
    reseal(path, index)
    with pytest.raises(CorruptCheckpoint):
        read(path)
    index.state_dict_metadata = entries
    (info,) = index.storage_data.values()
    info.relative_path = "../elsewhere"
    reseal(path, index)
    with pytest.raises(CorruptCheckpoint):
        read(path)
