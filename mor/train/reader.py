"""Reading a checkpoint without running code that stands in it.

torch.distributed.checkpoint keeps its index, `.metadata`, as a pickle, and a pickle may name any
function. Ours names a dozen classes that hold numbers and names; anything else is refused. So is an
entry that would be unpickled in its turn (it is not a tensor), and a file outside the checkpoint.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

_METADATA = "torch.distributed.checkpoint.metadata"
KNOWN = {
    *((_METADATA, name) for name in ("Metadata", "StorageMeta", "MetadataIndex")),
    *((_METADATA, name) for name in ("TensorStorageMetadata", "ChunkStorageMetadata")),
    *((_METADATA, name) for name in ("TensorProperties", "_MEM_FORMAT_ENCODING")),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    *(("pathlib", name) for name in ("PosixPath", "WindowsPath", "Path")),
}


class Foreign(pickle.UnpicklingError):
    """An index that no checkpoint of ours has."""


class Reader(FileSystemReader):
    """FileSystemReader, but for how it reads the index. Raises Foreign."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        metadata = read_index(Path(self.path))
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def read_index(checkpoint: Path) -> Metadata:
    """The index of a checkpoint. Raises Foreign."""
    try:
        with (checkpoint / ".metadata").open("rb") as file:
            metadata = _Unpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise Foreign(f"its index is of type {type(metadata).__name__}")
        for name, entry in metadata.state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata):
                raise Foreign(f"{name} is not a tensor")
        for info in (metadata.storage_data or {}).values():
            if Path(info.relative_path).name != info.relative_path:
                raise Foreign(f"{info.relative_path} is outside the checkpoint")
    except (Foreign, OSError):
        raise
    except Exception as error:  # whatever a pickle that is not ours leads to
        raise Foreign(f"its index cannot be read ({type(error).__name__})") from None
    return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if dtype or (module, name) in KNOWN:
            return super().find_class(module, name)
        raise Foreign(f"its index names {module}.{name}")
