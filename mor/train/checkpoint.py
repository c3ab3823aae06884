"""Training state on disk, atomic and checked.

A checkpoint is a folder: the tensors as torch.distributed.checkpoint writes them (so that sharded
training can reshard them), and `meta.json` with the loop's numbers and a digest of every file. It
is written under a temporary name and renamed when it is complete and synced; a folder without that
name is never read. `plateau-<FLOPs>` is kept for ever, `step-<n>` while it is among the newest.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter

from mor.files import sync_to_disk
from mor.flops import Routed

META = "meta.json"
Tensors = dict[str, torch.Tensor]


class CorruptCheckpoint(Exception):
    """A checkpoint whose files are not what was written."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands: all of the loop's state that is not a tensor."""

    step: int
    spent: float  # FLOPs under the run's convention
    work: Routed  # all that was routed so far

    @property
    def tokens(self) -> int:
        return int(self.work.processed)


def save(path: Path, tensors: Tensors, progress: Progress) -> None:
    """Write a complete checkpoint at `path`, or leave nothing there.

    Raises OSError where the disk is full; the temporary folder is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch: "no process group"
            writer = FileSystemWriter(temporary, single_file_per_rank=True, sync_files=True)
            dcp.save(dict(tensors), storage_writer=writer, no_dist=True)
        meta = {"progress": asdict(progress), "files": _digests(temporary)}
        with (temporary / META).open("w") as file:
            json.dump(meta, file)
            file.flush()
            os.fsync(file.fileno())
        sync_to_disk(temporary)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_to_disk(path.parent)


def load(path: Path, tensors: Tensors) -> Progress:
    """Read a checkpoint into `tensors` in place, after checking every file's digest.

    Raises CorruptCheckpoint.
    """
    progress = read_progress(path)
    meta = json.loads((path / META).read_text())
    if _digests(path) != meta["files"]:
        raise CorruptCheckpoint(f"{path}: its files are not those that were written")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(dict(tensors), storage_reader=FileSystemReader(path), no_dist=True)
    return progress


def read_progress(path: Path) -> Progress:
    """The loop's numbers of a checkpoint. Raises CorruptCheckpoint."""
    try:
        values = json.loads((path / META).read_text())["progress"]
        work = values["work"]
        routed = Routed(work["processed"], tuple(work["tokens"]), tuple(work["pairs"]))
        return Progress(int(values["step"]), float(values["spent"]), routed)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpoint(f"{path}: {error}") from None


def candidates(folder: Path, at_most: float | None = None) -> list[Path]:
    """Checkpoints that have spent at most `at_most` FLOPs, furthest first.

    One that cannot be read comes before all others, so that whoever resumes says so.
    """
    found: list[tuple[float, Path]] = []
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            try:
                progress = read_progress(path)
            except CorruptCheckpoint:
                found.append((math.inf, path))
                continue
            if at_most is None or progress.spent <= at_most:
                found.append((progress.step, path))
    return [path for _, path in sorted(found, key=lambda item: item[0], reverse=True)]


def prune(folder: Path, keep: int) -> None:
    """Remove torn writes and all but the `keep` newest rolling checkpoints; plateau ends stay."""
    for path in folder.glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
    rolling = sorted(folder.glob("step-*"), reverse=True)
    for path in rolling[keep:]:
        shutil.rmtree(path, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.iterdir()):
        if path.name != META:
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "blake2b").hexdigest()
    return digests
