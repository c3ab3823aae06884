"""Which files a corpus is read from, in which order. Standard library only: planning calls it.

The order depends on the content of the files, never on their folder: the standard library's are
sorted by their path inside it, a user's files by format and content.
"""

from __future__ import annotations

import glob
import os
import sysconfig
from collections import Counter
from dataclasses import dataclass
from itertools import islice, takewhile
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
LOOKED_AT = 10_000  # files of a folder, to see which ending its texts have
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".ndjson": "json"}

TEXTS = (".txt", ".md", *FORMATS)

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
        inside = os.path.join(pattern, "**", f"*{_common_ending(path) or '.txt'}")
        raise ConfigError("data.paths", pattern, "a folder", f"type 'data.paths=[{inside}]'")
    matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
    files = [match for match in matches if match.is_file()]
    if not files:
        raise ConfigError("data.paths", pattern, *_nothing(path))
    return files


def _nothing(path: Path) -> tuple[str, str]:
    """What is wrong with a pattern that names no file, and what to type."""
    folder = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts[:-1]))
    where, other = os.path.abspath(folder), "'data.paths=[<folder>/*.txt]' with one that is there"
    if not folder.is_dir():
        return f"there is no folder {where}", f"type {other}"
    problem = "matches no file" if glob.has_magic(str(path)) else "no such file"
    if ending := _common_ending(folder):
        inside = os.path.join(folder, "**", f"*{ending}")
        return problem, f"type 'data.paths=[{inside}]' for the {ending} files of {where}"
    return f"{problem}, and {where} holds no texts", f"type {other}"


def _common_ending(folder: Path) -> str:
    """The ending of most of the texts in a folder; empty where it has none."""
    names = (name for _, _, names in os.walk(folder) for name in names)
    endings = Counter(
        "".join((_ending(name), compression_of(name)))
        for name in islice(names, LOOKED_AT)
        if _ending(name) in TEXTS
    )
    return max(endings, key=lambda ending: (endings[ending], ending), default="")
