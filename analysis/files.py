"""Files that are either the old ones or the new ones, never half of both."""

import os
import tempfile
from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet calculates a cell that begins so


def make_folder(folder: Path) -> None:
    """Make `folder` with its parents. Raises AnalysisError where that is not possible."""
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


def as_csv(data: pd.DataFrame) -> str:
    """The table as CSV in which no text is a formula: an apostrophe stands before one."""
    names = {name: _inert(name) for name in data.columns}
    return str(data.map(_inert).rename(columns=names).to_csv(index=False))


def _inert(cell: object) -> object:
    if not isinstance(cell, str) or len(cell) < 2 or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
