"""Files that are either the old ones or the new ones, never half of both."""

import os
import tempfile
from pathlib import Path

from analysis.errors import AnalysisError


def make_folder(folder: Path) -> None:
    """Make `folder` with its parents, or say in one sentence why it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnalysisError(
            f"The output folder {folder} cannot be made ({error.strerror}): "
            "choose another one with --out."
        ) from error


def write_whole(path: Path, content: bytes | str) -> None:
    """Write to a temporary file in the same folder, then rename it over `path`."""
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files private to their owner; a figure is meant to be shared.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
