"""Hugging Face hub: the files of a dataset and of a tokenizer, with failures that come quickly.

The hub's own clients retry for 20 to 60 seconds before they give up, so one short request goes
first. Offline (`HF_HUB_OFFLINE=1`) no request is made and the clients use what they have cached.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mor.config import ConfigError, DataConfig, UserError

PROBE_S = 5.0  # seconds that the hub is given to answer
FILE = "tokenizer.json"
HUB = "hf://"
CONVERTED = "refs/convert/parquet"  # branch of the parquet files that the hub makes of a dataset
READABLE = tuple(
    name + compression
    for name in (".parquet", ".jsonl", ".json", ".ndjson", ".txt")
    for compression in ("", ".gz", ".bz2", ".xz", ".zst")
)

OFFLINE_WAY = (
    "without network, type data=stdlib or data=files 'data.paths=[...]', or "
    "data.mirror=<a copy of the dataset's repository>"
)


@dataclass(frozen=True)
class HubListing:
    """The files of the training split of a dataset, in one state of its repository."""

    dataset: str
    commit: str | None  # None: a copy of the repository without one
    files: tuple[str, ...]  # paths inside the repository

    def places(self, data: DataConfig) -> dict[str, str]:
        """Where each file can be read: in data.mirror, or on the hub at that commit."""
        if data.mirror is not None:
            root = Path(data.mirror).expanduser()
            missing = next((name for name in self.files if not (root / name).is_file()), None)
            if missing is not None:
                raise ConfigError(
                    "data.mirror", data.mirror, f"{missing} is missing", "copy the whole repository"
                )
            return {name: str(root / name) for name in self.files}
        base = f"{HUB}datasets/{self.dataset}@{self.commit or data.revision or 'main'}"
        return {name: f"{base}/{name}" for name in self.files}

    def to_dict(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "commit": self.commit, "files": list(self.files)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> HubListing:
        return cls(values["dataset"], values["commit"], tuple(values["files"]))


def list_dataset(data: DataConfig) -> HubListing:
    """The files of `data.dataset`, as its repository's README or its names say.

    Raises UserError if the hub cannot be reached, the dataset cannot be opened, or it holds
    something else than parquet, JSON or text.
    """
    import datasets

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it reports what is raised here
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    mirror = None if data.mirror is None else Path(data.mirror).expanduser().absolute()
    if mirror is None:
        require_hub("data.dataset", str(data.dataset))
    elif not mirror.is_dir():
        raise ConfigError(
            "data.mirror", data.mirror, "no such folder", "name a copy of the dataset"
        )
    try:
        if mirror and data.subset and not (mirror / "README.md").exists():
            builder = datasets.load_dataset_builder(str(mirror / data.subset))
        elif mirror is None and data.subset and data.revision == CONVERTED:
            # a folder for each configuration, and no README that says so
            builder = datasets.load_dataset_builder(
                str(data.dataset), data_dir=data.subset, revision=data.revision
            )
        else:
            place, revision = str(mirror or data.dataset), None if mirror else data.revision
            builder = datasets.load_dataset_builder(place, data.subset, revision=revision)
        found = [str(place) for place in builder.config.data_files["train"]]
    except Exception as error:  # of `datasets`, of the hub or of the HTTP library below them
        raise ConfigError(
            "data.dataset",
            f"{data.dataset} (data.subset={data.subset}, data.revision={data.revision})",
            f"cannot be read from {mirror or 'the hub'} ({first_line(error)})",
            f"check the three names and `hf auth whoami`, or {OFFLINE_WAY}",
        ) from error
    if mirror is not None:
        names = [os.path.relpath(place, mirror) for place in found]
        return _listing(data, None, names)
    start = re.compile(rf"{HUB}datasets/{re.escape(str(data.dataset))}@([^/]+)/(.*)")
    split = [start.fullmatch(place) for place in found]
    commits = {match[1] for match in split if match}
    return _listing(data, min(commits, default=None), [match[2] for match in split if match])


def _listing(data: DataConfig, commit: str | None, names: list[str]) -> HubListing:
    odd = [name for name in names if not name.lower().endswith(READABLE)]
    if odd or not names:
        setting = "dataset" if data.mirror is None else "mirror"
        raise ConfigError(
            f"data.{setting}",
            getattr(data, setting),
            f"{odd[0]} is neither parquet, JSON lines nor text" if odd else "no training files",
            _readable_copy(data),
        )
    return HubListing(str(data.dataset), commit, tuple(sorted(names)))


def _readable_copy(data: DataConfig) -> str:
    """What to type for a dataset in another format."""
    if data.mirror is not None:
        return (
            f"copy the parquet files that the hub makes of datasets: hf download {data.dataset} "
            f"--repo-type dataset --revision {CONVERTED} --local-dir <folder>, or write its rows "
            "as parquet or JSON lines"
        )
    if data.revision == CONVERTED:
        return "write its rows as parquet or JSON lines and type data=files 'data.paths=[...]'"
    return f"type data.revision={CONVERTED}, the parquet files that the hub makes of datasets"


def hub_files(dataset: str, places: Sequence[str]) -> dict[str, tuple[int, str | None]]:
    """Size and SHA-256 (None: not known) of files at hf://datasets/<dataset>@<commit>/<path>, by
    place; nothing where the hub does not say."""
    from huggingface_hub import HfApi, constants

    start = re.compile(rf"{HUB}datasets/{re.escape(dataset)}@(refs/[^/]+/[^/]+|[^/]+)/(.*)")
    paths: dict[str, dict[str, str]] = {}
    for place in places:
        if match := start.fullmatch(place):
            paths.setdefault(match[1], {})[match[2]] = place
    found = {}
    if constants.HF_HUB_OFFLINE:
        return {}
    with contextlib.suppress(Exception):  # of the hub or of the HTTP library below it
        for commit, wanted in paths.items():
            infos = HfApi().get_paths_info(
                dataset, list(wanted), revision=commit, repo_type="dataset"
            )
            for info in infos:
                lfs, size = getattr(info, "lfs", None), getattr(info, "size", None)
                if info.path in wanted and size is not None:
                    found[wanted[info.path]] = (int(size), lfs.sha256 if lfs else None)
    return found


def hub_tokenizer(name: str) -> Path:
    """The tokenizer.json of a model repository, `<owner>/<name>` or `<owner>/<name>@<commit>`.

    A copy that the hub's client has cached is used without asking the hub. Raises ConfigError where
    there is none and the hub gives none.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    commit = revision or None
    try:
        cached = hf_hub_download(repository, FILE, revision=commit, local_files_only=True)
        return Path(cached)
    except LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise ConfigError(
                "data.tokenizer",
                name,
                "HF_HUB_OFFLINE is set and the hub's cache does not hold it",
                "unset HF_HUB_OFFLINE or type the path of a tokenizer.json",
            ) from error
        require_hub("data.tokenizer", name)
    except HFValidationError as error:
        raise ConfigError(
            "data.tokenizer", name, "no name on the hub", "type <owner>/<name> or bytes"
        ) from error
    try:
        return Path(hf_hub_download(repository, FILE, revision=commit))
    except Exception as error:  # of the hub or of the HTTP library below it
        raise ConfigError(
            "data.tokenizer",
            name,
            f"no tokenizer.json could be had from the hub ({first_line(error)})",
            "check the name, or type data.tokenizer=train or the path of a tokenizer.json",
        ) from error


def require_hub(setting: str, value: object) -> None:
    """Raise UserError within about PROBE_S seconds if the hub does not answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    failure = _probe(constants.ENDPOINT)
    if failure is not None:
        raise UserError(
            f"{setting}={value}: {constants.ENDPOINT} cannot be reached ({failure}); {OFFLINE_WAY}"
        )


def _probe(endpoint: str) -> str | None:
    """Why the hub does not answer; None if it does, with whatever status."""
    from huggingface_hub.utils import get_session

    failures = ["no answer"]

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=PROBE_S)
            failures.clear()
        except Exception as error:
            failures[:] = [first_line(error)]

    # A resolver without network can block for longer than any timeout of the request.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_S + 1)
    return failures[0] if failures else None


def first_line(error: BaseException) -> str:
    """What a foreign error says, fit for the inside of a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".;")[:200]
