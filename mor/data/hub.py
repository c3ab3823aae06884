"""Hugging Face hub: streamed datasets and tokenizer files, with failures that come quickly.

The hub's own clients retry for 20 to 60 seconds before they give up, so one short request goes
first. Offline (`HF_HUB_OFFLINE=1`) no request is made and the clients use what they have cached.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mor.config import ConfigError, DataConfig, UserError

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

PROBE_S = 5.0  # seconds that the hub is given to answer
ROWS = 256  # documents read at once
FILE = "tokenizer.json"

OFFLINE_WAY = "without network, type data=stdlib or data=files 'data.paths=[...]'"


def hub_rows(data: DataConfig) -> Iterator[pa.Table]:
    """The training split of `data.dataset`, streamed in tables of up to ROWS rows.

    Raises UserError if the hub cannot be reached or the dataset cannot be opened or read.
    """
    require_hub("data.dataset", data.dataset)
    import datasets

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it reports what is raised here
    try:
        stream = datasets.load_dataset(
            data.dataset, data.subset, revision=data.revision, split="train", streaming=True
        )
        yield from stream.with_format("arrow").iter(batch_size=ROWS)
    except Exception as error:  # of `datasets`, of the hub or of the HTTP library below them
        raise ConfigError(
            "data.dataset",
            f"{data.dataset} (data.subset={data.subset}, data.revision={data.revision})",
            f"cannot be read from the hub ({first_line(error)})",
            f"check the three names and `hf auth whoami`, or {OFFLINE_WAY}",
        ) from error


def hub_tokenizer(name: str) -> Path:
    """The tokenizer.json of a model repository, `<owner>/<name>` or `<owner>/<name>@<commit>`.

    A copy that the hub's client has cached is used without asking the hub.
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
