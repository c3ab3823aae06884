"""Which files a corpus is read from, in which order. Standard library only: planning calls it.

The order depends on the content of the files, never on their folder: the standard library's are
sorted by their path inside it, a user's files by format and content.
"""

from __future__ import annotations

import glob
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from mor.config import ConfigError, DataConfig
from mor.data.digests import file_digests

STDLIB_SUFFIXES = (".py", ".rst", ".txt")
STDLIB_OMITTED = {
    # tests repeat the library and hold deliberately broken text
    "test",
    "tests",
    "idle_test",
    # not the standard library
    "site-packages",
    "dist-packages",
    "__pycache__",
}
# Written by the builder or packager of this Python: they differ between equal versions.
STDLIB_OMITTED_PREFIXES = ("config-", "_sysconfigdata", "sitecustomize", "usercustomize")

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".ndjson": "json"}

_ROWS = "write its rows as JSON lines or parquet (a .txt file is trained on as it stands)"
_UNPACK = "unpack it and name the files inside"
_TEXT = "write its text as .txt, JSON lines or parquet"
NOT_READ = {
    **dict.fromkeys(
        (".csv", ".tsv", ".xls", ".xlsx", ".arrow", ".feather", ".avro", ".orc"), _ROWS
    ),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), _UNPACK),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".odt", ".epub", ".rtf"), _TEXT),
}  # else they would be read as plain text


class FileRefused(ConfigError):
    """A file that is not read, whatever is in it."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a corpus."""

    path: Path
    format: str  # text | json | parquet
    label: str  # what the fingerprint calls it: the path inside the standard library, or the format
    digest: str  # SHA-256 of the content, hexadecimal

    @property
    def compressed(self) -> bool:
        return bool(compression_of(str(self.path)))


def source_files(data: DataConfig) -> list[SourceFile]:
    """The files of a `stdlib` or `files` corpus in reading order.

    Raises ConfigError if data.paths is empty, matches nothing or cannot be read.
    """
    cache_dir = Path(data.cache_dir).expanduser()
    if data.kind == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        labels = _stdlib_labels(root)
        paths = [root / label for label in labels]
        digests = file_digests(paths, cache_dir)
        return [
            SourceFile(path, "text", label, digest)
            for path, label, digest in zip(paths, labels, digests, strict=True)
        ]
    paths = matching_files(data)
    try:
        digests = file_digests(paths, cache_dir)
    except OSError as error:
        raise FileRefused(
            "data.paths",
            error.filename,
            f"cannot be read ({error.strerror})",
            "fix its permissions",
        ) from error
    files = [
        SourceFile(path, text_format(path), text_format(path), digest)
        for path, digest in zip(paths, digests, strict=True)
    ]
    return sorted(files, key=lambda file: (file.format, file.digest))


def text_format(path: Path | str) -> str:
    """text, json or parquet, by the name's ending (`.gz` and the like looked through)."""
    return FORMATS.get(_ending(path), "text")


def _ending(path: Path | str) -> str:
    name = os.path.basename(path).lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    return os.path.splitext(name)[1]


def compression_of(name: str) -> str:
    """`.gz`, `.bz2`, `.xz`, `.zst` or nothing, by a name's ending."""
    suffix = os.path.splitext(name.lower())[1]
    return suffix if suffix in COMPRESSIONS else ""


def _stdlib_labels(root: Path) -> list[str]:
    labels = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [
            name
            for name in subfolders
            if name not in STDLIB_OMITTED and not name.startswith(STDLIB_OMITTED_PREFIXES)
        ]
        inside = os.path.relpath(folder, root)
        labels += [
            os.path.normpath(os.path.join(inside, name)).replace(os.sep, "/")
            for name in names
            if name.endswith(STDLIB_SUFFIXES) and not name.startswith(STDLIB_OMITTED_PREFIXES)
        ]
    return sorted(labels)


def matching_files(data: DataConfig) -> list[Path]:
    """The files that data.paths names. Raises ConfigError where it is empty or names none,
    FileRefused where one is of a kind that is not read."""
    found = named_files(data)
    for path in found:
        refuse_kind(path)
    return found


def refuse_kind(path: Path | str) -> None:
    """Raises FileRefused for a file of a kind that is not read."""
    if (kind := _ending(path)) in NOT_READ:
        raise FileRefused("data.paths", path, f"{kind} files are not read", NOT_READ[kind])


def named_files(data: DataConfig) -> list[Path]:
    """The files that data.paths names, of any kind. Raises ConfigError where there are none."""
    if not data.paths:
        raise ConfigError(
            "data.paths", "[]", "no file is named", "type 'data.paths=[corpus/*.jsonl]'"
        )
    found: dict[str, Path] = {}
    for pattern in data.paths:
        for path in _expand(pattern):
            found[os.path.realpath(path)] = path
    return list(found.values())


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_file():  # a name that exists is itself, brackets and stars included
        return [path]
    if path.is_dir():
        inside = os.path.join(pattern, "**", "*.jsonl")
        raise ConfigError("data.paths", pattern, "a folder", f"type 'data.paths=[{inside}]'")
    matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
    files = [match for match in matches if match.is_file()]
    if not files:
        problem = "matches no file" if glob.has_magic(pattern) else "no such file"
        instead = "fix the path" if path.is_absolute() else f"it is looked for in {os.getcwd()}"
        raise ConfigError("data.paths", pattern, problem, instead)
    return files
