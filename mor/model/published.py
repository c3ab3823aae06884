"""The files of published weights by their headers: every tensor's name, type and shape.

safetensors begins with the length of a JSON header, and the header. Reading it needs neither torch
nor the weights, so that a study which starts from weights that cannot be read is refused when it is
planned. Whatever a folder holds is accounted for: a file or a tensor that is not read is refused.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mor.config import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes of one number
LFS = b"version https://git-lfs"
LONGEST = 100_000_000  # bytes of a header, as safetensors itself limits it
AGAIN = "download it again"


class ExchangeError(UserError):
    """Weights that cannot be read or written: the message says which and why."""


@dataclass(frozen=True)
class Stored:
    """A tensor as a header describes it."""

    file: Path
    dtype: str  # F32, BF16, I8, ... as safetensors names it
    shape: tuple[int, ...]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ExchangeError."""
    data = _bytes(path)
    refuse_pointer(path, data)
    try:
        found = json.loads(data)
    except ValueError as error:
        raise ExchangeError(f"{path}: no valid JSON ({error}); {AGAIN}") from None
    if not isinstance(found, dict):
        raise ExchangeError(f"{path}: a JSON object is expected, not a list or a value; {AGAIN}")
    return found


def refuse_pointer(path: Path, data: bytes) -> None:
    """Raises ExchangeError for what Git LFS leaves in place of a file."""
    if data.startswith(LFS):
        raise ExchangeError(
            f"{path}: a Git LFS pointer, not the file itself; type git lfs pull in its folder"
        )


def stored(folder: Path) -> dict[str, Stored]:
    """Every tensor of a folder's weights, of one file or of those that an index names.

    Raises ExchangeError where a file is missing, torn, or not part of the model, where file and
    index disagree, and where a tensor is not of floating point.
    """
    files = _files(folder)
    found: dict[str, Stored] = {}
    for path in files:
        for name, tensor in _header(path).items():
            if name in found:
                raise ExchangeError(
                    f"{folder}: {name} stands in {found[name].file.name} and in {path.name}; keep "
                    "one of them"
                )
            found[name] = tensor
    if (folder / INDEX).exists():
        _compare(folder, found)
    return found


def _files(folder: Path) -> list[Path]:
    """The files that hold the weights; any other of their kind is refused."""
    present = {path.name for path in folder.glob("*.safetensors")}
    names = set(_weight_map(folder).values()) if (folder / INDEX).exists() else {WEIGHTS}
    if missing := sorted(names - present):
        pickled = [path.name for path in [*folder.glob("*.bin"), *folder.glob("*.pth")]]
        instead = "download the whole model"
        if pickled and not present:
            instead = f"{pickled[0]} is pickled and is not read: save it as safetensors"
        raise ExchangeError(f"{folder}: {missing[0]} is missing; {instead}")
    if surplus := sorted(present - names):
        raise ExchangeError(
            f"{folder}: {surplus[0]} is not part of the model that "
            f"{INDEX if (folder / INDEX).exists() else WEIGHTS} holds (an adapter, or another form "
            "of it?); move it to another folder, or merge it into the model"
        )
    return [folder / name for name in sorted(names)]


def _weight_map(folder: Path) -> dict[str, str]:
    found = read_json(folder / INDEX).get("weight_map")
    texts = isinstance(found, dict) and all(isinstance(name, str) for name in found.values())
    if not found or not texts:
        raise ExchangeError(f"{folder / INDEX}: weight_map names no files; {AGAIN}")
    for name in found.values():
        if Path(name).name != name:
            raise ExchangeError(
                f"{folder / INDEX}: {name} is outside of the folder, where it is missing; {AGAIN}"
            )
    return dict(found)


def _compare(folder: Path, found: dict[str, Stored]) -> None:
    index = _weight_map(folder)
    for name in sorted(index.keys() | found.keys()):
        here = found[name].file.name if name in found else "no file"
        there = index.get(name, "no file")
        if here != there:
            raise ExchangeError(
                f"{folder}: {name} is in {here} and {INDEX} says {there}; download the whole model"
            )


def _header(path: Path) -> dict[str, Stored]:
    """What a file of safetensors holds, checked against its length. Raises ExchangeError."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            refuse_pointer(path, first + file.read(len(LFS)))
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else LONGEST
            file.seek(8)
            data = file.read(length) if length < min(LONGEST, size) else b""
    except OSError as error:
        raise ExchangeError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from None
    try:
        entries = json.loads(data)
        tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
        found = {
            name: Stored(path, str(entry["dtype"]), tuple(map(int, entry["shape"])))
            for name, entry in tensors.items()
        }
        ends = [int(entry["data_offsets"][1]) for entry in tensors.values()]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ExchangeError(f"{path}: its header is damaged; {AGAIN}") from None
    whole = 8 + length + max(ends, default=0)
    if size != whole:
        raise ExchangeError(f"{path}: has {size} bytes and its header says {whole}; {AGAIN}")
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExchangeError(f"{path}: cannot be read ({error.strerror})") from None


def account(
    folder: Path, found: dict[str, Stored], wanted: dict[str, tuple[int, ...]], source: str
) -> None:
    """Refuse a tensor that is missing, of another shape or type, or that nothing reads.

    `wanted`: shapes by name, as the configuration `source` has them. Raises ExchangeError.
    """
    for name, tensor in found.items():
        if tensor.dtype not in FLOATS:
            raise ExchangeError(
                f"{tensor.file}: {name} is {tensor.dtype}, quantized weights are not read; save "
                "the model in bfloat16 or float32 first"
            )
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ExchangeError(f"{folder}: has no {missing[0]}, which {source} asks for")
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise ExchangeError(
                f"{folder}: {name} has the shape {list(found[name].shape)} and {source} says "
                f"{list(shape)}; correct {source}, or download the whole model"
            )
    surplus = sorted(found.keys() - wanted.keys())
    if surplus:
        more = f" and {len(surplus) - 1} more" if len(surplus) > 1 else ""
        kind = "biases are not supported" if "bias" in surplus[0] else "it would be dropped"
        raise ExchangeError(
            f"{folder}: nothing reads {surplus[0]}{more}: {kind}; only a plain Llama can be read"
        )
