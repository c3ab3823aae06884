"""Digests of a folder of published weights: `digests.json`, beside what it is about. No torch.

Written with every folder of ours and compared wherever we read one; folders of others have none.
transformers reads neither.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mor.model.llama import LLAMA, OWN
from mor.model.published import INDEX, ExchangeError, read_json

DIGESTS = "digests.json"
SCHEMA = 1
KIND = "sha256"
READ = (LLAMA, OWN, INDEX)  # beside the weights themselves


def seal(folder: Path) -> None:
    """Write the digests of all files of a folder."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    found = digests_of(folder, [name for name in names if name != DIGESTS])
    (folder / DIGESTS).write_text(json.dumps({"schema": SCHEMA, KIND: found}, indent=2) + "\n")


def digests_of(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of files in hexadecimal, by their names. Raises ExchangeError."""
    found = {}
    for name in names:
        try:
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ExchangeError(f"{folder / name}: cannot be read ({error.strerror})") from None
    return found


def model_digests(folder: Path) -> dict[str, str]:
    """Of the files that a model is made from."""
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    return digests_of(folder, [*(name for name in READ if (folder / name).exists()), *weights])


def refuse_changed(folder: Path, found: dict[str, str] | None = None) -> None:
    """Compare digests, or else those of the model, with those that were written, if any were.
    Raises ExchangeError."""
    if not (folder / DIGESTS).exists():
        return
    written = read_json(folder / DIGESTS).get(KIND)
    known = written if isinstance(written, dict) else {}  # or a file of others by this name
    for name, digest in (model_digests(folder) if found is None else found).items():
        if known.get(name, digest) != digest:
            raise ExchangeError(
                f"{folder / name}: not what was written; export the model again, or, if you "
                f"changed this file yourself, delete {DIGESTS}"
            )
