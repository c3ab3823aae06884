"""The fingerprint of a corpus: what its tokens depend on, and nothing else.

It stands for the data in a run's identity, so it is the same on every machine that holds the same
text, whatever the paths are. Standard library only: planning calls it.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from pathlib import Path

from mor.config import ConfigError, DataConfig, did_you_mean
from mor.data.digests import file_digests
from mor.data.sources import source_files

PACKING = 1  # raised whenever the same text would be packed into other tokens
KINDS = ("stdlib", "files", "hub")


def fingerprint(data: DataConfig) -> str:
    """16 hexadecimal characters; `data.fingerprint` itself is not looked at.

    Raises ConfigError for settings that name no corpus. Nothing is downloaded: a hub corpus is
    known by its names, so only one with data.revision set is known by its content.
    """
    check(data)
    recipe: dict[str, object] = {
        "packing": PACKING,
        "kind": data.kind,
        "tokenizer": _tokenizer_identity(data),
        "vocab_size": data.vocab_size,
        "val_fraction": float(data.val_fraction),
        "max_tokens": data.max_tokens,
    }
    if data.separator is not None:
        recipe["separator"] = data.separator
    if is_sharded(data):
        recipe["shards"] = [data.shard_mb, data.window_tokens]
    if data.kind == "hub":
        recipe["dataset"] = [data.dataset, data.subset, data.revision, data.text_field]
    else:
        files = source_files(data)
        recipe["files"] = [[file.label, file.digest] for file in files]
        if any(file.format != "text" for file in files):
            recipe["text_field"] = data.text_field
        if codec(data) != codecs.lookup("utf-8").name:
            recipe["encoding"] = codec(data)
    text = json.dumps(recipe, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_sharded(data: DataConfig) -> bool:
    """Whether the corpus lies in shards, of which more can be prepared later."""
    return data.kind == "hub" or data.sharded


def codec(data: DataConfig) -> str:
    """The encoding under its one name. Raises ConfigError for one that is not known."""
    try:
        return codecs.lookup(data.encoding).name
    except LookupError:
        raise ConfigError(
            "data.encoding", data.encoding, "no such encoding", "type utf-8, cp1251, latin-1, ..."
        ) from None


def check(data: DataConfig) -> None:
    """Raise ConfigError for a value that no corpus can have."""
    if data.kind not in KINDS:
        raise ConfigError("data.kind", data.kind, "no such kind", did_you_mean(data.kind, KINDS))
    if data.kind == "hub" and not data.dataset:
        raise ConfigError(
            "data.dataset", data.dataset, "no dataset is named", "type data.dataset=<owner>/<name>"
        )
    _refuse_inactive(data)
    if data.on_bad_row not in ("skip", "stop"):
        raise ConfigError("data.on_bad_row", data.on_bad_row, "not known", "type skip or stop")
    for name, least in (("shard_mb", 1), ("window_tokens", 1), ("tokens", 1)):
        value = getattr(data, name)
        if value is not None and value < least:
            raise ConfigError(f"data.{name}", value, f"less than {least}", "leave it out")
    codec(data)
    if not 0 < data.val_fraction < 1:
        raise ConfigError(
            "data.val_fraction", data.val_fraction, "not between 0 and 1", "type 0.05 or the like"
        )
    least = {"bytes": 256, "train": 258}.get(data.tokenizer, 1)
    if data.vocab_size < least:
        raise ConfigError(
            "data.vocab_size",
            data.vocab_size,
            f"too few entries for data.tokenizer={data.tokenizer}",
            "type data.vocab_size=4096" if data.tokenizer == "train" else f"type {least} or more",
        )
    if data.max_tokens is not None and data.max_tokens < 1:
        raise ConfigError(
            "data.max_tokens", data.max_tokens, "nothing would be left", "type null for all tokens"
        )


OF_FILES, OF_HUB = "data=files", "data=fineweb_edu or another data.kind=hub"
ONLY = {
    "paths": (("files",), OF_FILES),
    "sharded": (("files", "hub"), OF_FILES),
    "text_field": (("files", "hub"), f"{OF_FILES} or data.kind=hub"),
    "dataset": (("hub",), OF_HUB),
    "subset": (("hub",), OF_HUB),
    "revision": (("hub",), OF_HUB),
    "mirror": (("hub",), OF_HUB),
}  # settings that some kinds read, and how such a kind is chosen
IN_SHARDS = ("tokens", "window_tokens", "shard_mb")


def _refuse_inactive(data: DataConfig) -> None:
    """Raises ConfigError for a setting that the corpus does not read: it would be dropped."""
    for name, (kinds, chosen) in ONLY.items():
        if data.kind not in kinds and _is_set(data, name):
            raise ConfigError(
                f"data.{name}", _shown(data, name), f"data={data.name} does not read it",
                f"leave it out, or type {chosen}",
            )  # fmt: skip
    for name in IN_SHARDS:
        if not is_sharded(data) and _is_set(data, name):
            files = data.kind == "files"
            raise ConfigError(
                f"data.{name}",
                _shown(data, name),
                f"data={data.name} does not lie in shards",
                "leave it out" + ", or add data.sharded=true" * files,
            )


def _is_set(data: DataConfig, name: str) -> bool:
    return bool(getattr(data, name) != getattr(DataConfig(), name))


def _shown(data: DataConfig, name: str) -> object:
    value = getattr(data, name)
    if isinstance(value, tuple):
        return f"[{','.join(value)}]"
    return str(value).lower() if isinstance(value, bool) else value


def tokenizer_file(data: DataConfig) -> Path | None:
    """The tokenizer.json that data.tokenizer names; None for bytes, train and names on the hub.

    Raises ConfigError if it names a file that is not there.
    """
    if data.tokenizer in ("bytes", "train"):
        return None
    path = Path(data.tokenizer).expanduser()
    if path.is_file():
        return path
    owner, _, name = data.tokenizer.partition("/")
    if path.suffix == ".json" or not owner or not name or "/" in name or path.is_dir():
        raise ConfigError(
            "data.tokenizer",
            data.tokenizer,
            "neither a tokenizer.json file nor a name on the hub",
            "type bytes, train, the path of a tokenizer.json or <owner>/<name>",
        )
    return None


def _tokenizer_identity(data: DataConfig) -> str:
    path = tokenizer_file(data)
    if path is None:
        return data.tokenizer
    return file_digests([path], Path(data.cache_dir).expanduser())[0]
