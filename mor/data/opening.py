"""A file of a corpus as a stream of bytes: local or on the hub, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from mor.data.hub import HUB
from mor.data.sources import compression_of

BLOCK = 8 * 2**20  # bytes of one range request


@dataclass(frozen=True)
class Source:
    """A file to read text from."""

    place: str  # a path, or hf://datasets/<owner>/<name>@<commit>/<path>
    format: str  # text | json | parquet

    @property
    def compression(self) -> str:
        """The suffix that says how it is compressed; empty: not."""
        return compression_of(self.place)

    def raw(self) -> IO[bytes]:
        """The bytes as they are stored; seekable. Raises OSError."""
        if self.place.startswith(HUB):
            return _on_the_hub(self.place)
        return open(self.place, "rb")

    def size(self) -> int:
        """Bytes as stored. Raises OSError."""
        if self.place.startswith(HUB):
            with self.raw() as file:
                return file.seek(0, io.SEEK_END)
        return Path(self.place).stat().st_size

    def content(self) -> IO[bytes]:
        """The bytes, decompressed. Raises OSError; reading raises what `BROKEN` names."""
        file = self.raw()
        if self.compression == ".gz":
            return cast(IO[bytes], gzip.GzipFile(fileobj=file))
        if self.compression == ".bz2":
            return bz2.BZ2File(file)
        if self.compression == ".xz":
            return lzma.LZMAFile(file)
        if self.compression == ".zst":
            import pyarrow as pa  # type: ignore[import-untyped]

            return cast(IO[bytes], io.BufferedReader(pa.input_stream(file, compression="zstd")))
        return file


# What decompression raises for a damaged file; pyarrow's errors are OSError or ValueError.
BROKEN = (OSError, EOFError, ValueError, lzma.LZMAError)


def _on_the_hub(place: str) -> IO[bytes]:
    """The copy that the hub's client has cached, else range requests, repeated where they fail."""
    from huggingface_hub import HfFileSystem, try_to_load_from_cache
    from huggingface_hub.hf_file_system import HfFileSystemResolvedRepositoryPath

    files = HfFileSystem()
    try:
        where = files.resolve_path(place)
    except Exception as error:  # of the hub or of the HTTP library below it
        raise OSError(str(error) or type(error).__name__) from error
    assert isinstance(where, HfFileSystemResolvedRepositoryPath)
    cached = try_to_load_from_cache(
        where.repo_id, where.path_in_repo, revision=where.revision, repo_type=where.repo_type
    )
    if isinstance(cached, str):
        return open(cached, "rb")
    return cast(IO[bytes], io.BufferedReader(_Remote(files.open(place, "rb", block_size=BLOCK))))


class _Remote(io.RawIOBase):
    """A file on the hub whose failures are OSErrors, whichever library raises them."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._file.read(len(buffer))
        except Exception as error:
            raise OSError(str(error) or type(error).__name__) from error
        buffer[: len(content)] = content
        return len(content)
