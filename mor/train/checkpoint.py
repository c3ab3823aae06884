"""Training state on disk, atomic and checked.

A checkpoint is a folder: the tensors as torch.distributed.checkpoint writes them, each rank its
own share, so that any other number of ranks can read them; and `meta.json` with the loop's numbers,
and the size and digest of every file. It is written under a temporary name and renamed when it is
complete and synced; a folder without that name is never read. `plateau-<FLOPs>` is kept for ever,
`step-<n>` while it is among the newest.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from ledger.damage import META, checkpoint_digests_differ, file_digest, read_meta, sealed
from ledger.errors import DamagedFile
from ledger.files import sync_to_disk
from mor.flops import Routed
from mor.train.distributed import OtherRankFailed, Ranks
from mor.train.reader import Foreign, Reader, read_index

Tensors = dict[str, torch.Tensor]
MODEL = "model/"  # before the names of a model's tensors


class CorruptCheckpoint(Exception):
    """A checkpoint whose files are not what was written."""


class OtherModel(Exception):
    """A checkpoint, as it was written, of another model than the one it is read into."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands: all of the loop's state that is not a tensor."""

    step: int
    spent: float  # FLOPs under the run's convention
    work: Routed  # all that was routed so far
    loss: float | None = None  # of the last step, nats per token

    @property
    def tokens(self) -> int:
        return int(self.work.processed)


def save(path: Path, tensors: Tensors, progress: Progress, ranks: Ranks | None = None) -> None:
    """Write a complete checkpoint at `path`, all ranks together, or leave nothing there.

    `tensors` are this rank's `own`. Raises OSError where the disk is full; the temporary folder is
    removed.
    """
    ranks = ranks or Ranks(token=str(os.getpid()))
    temporary = path.with_name(f".{path.name}.{ranks.token}.tmp")
    try:
        _by_first(ranks, lambda: shutil.rmtree(temporary, ignore_errors=True))
        _write(temporary, tensors, ranks)
        _by_first(ranks, lambda: _complete(temporary, path, progress))
    except BaseException:
        if ranks.first:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write(folder: Path, tensors: Tensors, ranks: Ranks) -> None:
    """Every rank's share of the tensors, each under its own name."""
    alone = ranks.size == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: "no process group"
        writer = FileSystemWriter(folder, single_file_per_rank=True, sync_files=True)
        try:
            dcp.save(
                dict(tensors),
                storage_writer=writer,
                no_dist=alone,
                process_group=None if alone else ranks.storage.group,
            )
        except CheckpointException as failure:  # no Exception: it would pass by every handler
            causes = [cause for cause, _ in failure.failures.values()]
            known = [cause for cause in causes if isinstance(cause, OSError)]
            raise (known or [OSError(str(failure))])[0] from failure


def own(tensors: Tensors, ranks: Ranks) -> Tensors:
    """What this rank writes: its shards, and its share of what every rank has in full."""
    return {
        name: tensor
        for i, (name, tensor) in enumerate(tensors.items())
        if i % ranks.size == ranks.rank or isinstance(tensor, DTensor)
    }


def _complete(temporary: Path, path: Path, progress: Progress) -> None:
    """Seal a folder that all ranks have written, and give it its name."""
    digests = _digests(temporary)
    sizes = {name: (temporary / name).stat().st_size for name in digests}
    meta = {"progress": asdict(progress), "files": digests, "sizes": sizes}
    with (temporary / META).open("w") as file:
        json.dump(sealed(meta), file)
        file.flush()
        os.fsync(file.fileno())
    sync_to_disk(temporary)
    earlier = temporary.with_name(f"{temporary.name}.earlier.tmp")
    if path.exists():
        path.rename(earlier)
    temporary.rename(path)
    sync_to_disk(path.parent)
    shutil.rmtree(earlier, ignore_errors=True)


def _by_first(ranks: Ranks, act: Callable[[], None]) -> None:
    """Let rank 0 act while the others wait; where it fails, all raise."""
    failure: Exception | None = None
    if ranks.first:
        try:
            act()
        except Exception as error:
            failure = error
    word = ranks.storage.shared(str(failure) if failure else None)
    if failure:
        raise failure
    if word is not None and not ranks.first:
        raise OtherRankFailed(f"rank 0 wrote no checkpoint: {word}")


def load(path: Path, tensors: Tensors, ranks: Ranks | None = None) -> Progress:
    """Read a checkpoint into `tensors` in place, after checking every file's digest.

    All ranks call it together; they may be more or fewer than wrote it. Raises CorruptCheckpoint.
    """
    ranks = ranks or Ranks()
    progress = ranks.shared(_checked(path) if ranks.first else CorruptCheckpoint())
    if isinstance(progress, CorruptCheckpoint):
        raise progress
    _read(path, tensors, ranks)
    return progress


def load_model(path: Path, weights: Tensors) -> Progress:
    """Read a model's weights alone, by their names in the model, in place, after every check.

    Raises CorruptCheckpoint, OtherModel.
    """
    progress = _checked(path)
    if isinstance(progress, CorruptCheckpoint):
        raise progress
    wanted = {MODEL + name: tensor for name, tensor in weights.items()}
    _refuse_other(path, wanted)
    _read(path, wanted, Ranks())
    return progress


def _refuse_other(path: Path, wanted: Tensors) -> None:
    """Compare names and shapes with the index. Raises OtherModel, CorruptCheckpoint."""
    try:
        entries = read_index(path).state_dict_metadata
    except (Foreign, OSError) as error:  # set aside meanwhile
        raise CorruptCheckpoint(f"{path}: {error}") from None
    there = {
        name: list(entry.size)
        for name, entry in entries.items()
        if name.startswith(MODEL) and isinstance(entry, TensorStorageMetadata)
    }
    ours = {name: list(tensor.shape) for name, tensor in wanted.items()}
    for name in sorted(there.keys() | ours.keys()):
        if there.get(name) != ours.get(name):
            held, asked = (_said(shapes.get(name)) for shapes in (there, ours))
            raise OtherModel(f"{name.removeprefix(MODEL)} is {held} there and {asked} in the model")


def _said(shape: list[int] | None) -> str:
    return "missing" if shape is None else f"of shape {shape}"


def _read(path: Path, tensors: Tensors, ranks: Ranks) -> None:
    alone = ranks.size == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dcp.load(
                dict(tensors),
                storage_reader=Reader(path),
                no_dist=alone,
                process_group=None if alone else ranks.group,
            )
        except CheckpointException as failure:  # no Exception: it would pass by every handler
            causes = [cause for cause, _ in failure.failures.values()]
            if any(isinstance(cause, OSError) for cause in causes):  # set aside meanwhile
                raise CorruptCheckpoint(f"{path}: {causes[0]}") from None
            raise RuntimeError(f"{path}: {causes[0] if causes else failure}") from failure


def is_damaged(path: Path) -> bool:
    """Whether a folder exists that is not a complete checkpoint; reads all of it."""
    return path.exists() and isinstance(_checked(path), CorruptCheckpoint)


def _checked(path: Path) -> Progress | CorruptCheckpoint:
    try:
        progress = read_progress(path)
        if checkpoint_digests_differ(path):
            return CorruptCheckpoint(f"{path}: its files are not those that were written")
        read_index(path)
    except CorruptCheckpoint as error:
        return error
    except (DamagedFile, Foreign, OSError) as error:
        return CorruptCheckpoint(f"{path}: {error}")
    return progress


def read_progress(path: Path) -> Progress:
    """The loop's numbers of a checkpoint. Raises CorruptCheckpoint."""
    try:
        values = read_meta(path)["progress"]
        work = values["work"]
        names = ("tokens", "pairs", "forward_tokens", "forward_pairs")
        routed = Routed(work["processed"], *(tuple(work.get(name, ())) for name in names))
        return Progress(int(values["step"]), float(values["spent"]), routed, values.get("loss"))
    except (DamagedFile, ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpoint(f"{path}: {error}") from None


def candidates(folder: Path, at_most: float | None = None) -> list[Path]:
    """Checkpoints that have spent at most `at_most` FLOPs, furthest first.

    One that cannot be read comes before all others, so that a resumed run reports it.
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
            digests[path.name] = file_digest(path)
    return digests
