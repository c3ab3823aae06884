"""`python -m mor prepare`: a corpus made ready before runs need it, with sweep.py's settings."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

from mor.config import ConfigError, DataConfig, UserError, from_dict
from mor.data.fingerprint import is_sharded
from mor.data.hub import first_line
from mor.data.known import known, refuse_too_few
from mor.data.look import refuse_unreadable, with_fingerprint
from mor.data.packed import Corpus
from mor.data.prepare import prepare
from mor.data.sharded import How
from mor.data.tokenizer import unused_entries
from mor.starter import conf_folder
from mor.typed import Texts

SAID_BY_REPORT = ("mor.data.pack", "mor.data.tokenizer")  # what they log


def settings(arguments: list[str]) -> tuple[DataConfig, int | None]:
    """The corpus that settings of sweep.py name, and runtime.workers. Raises UserError."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    texts = text_settings()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            composed = compose("config", overrides=texts.as_typed(arguments))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_mistake(arguments, error, texts)) from None
    data = OmegaConf.to_container(composed.data, resolve=False)
    assert isinstance(data, dict)
    workers = composed.runtime.workers
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ConfigError("runtime.workers", workers, "not a number of processes", "type 4")
    return from_dict(DataConfig, {str(k): v for k, v in data.items()}, "data."), workers


def text_settings() -> Texts:
    """The settings of a corpus that take a text or a list of texts."""
    found = {}
    for name, hint in get_type_hints(DataConfig).items():
        arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if str in arms or tuple[str, ...] in arms:
            found[f"data.{name}"] = type(None) in arms
    return Texts(found)


def _mistake(arguments: list[str], error: Exception, texts: Texts) -> str:
    override = getattr(error, "override", None)  # the one that could not be parsed
    if isinstance(override, str) and (quoted := texts.quoted_form(override)):
        return f"{override}: cannot be read without quotes; type {quoted}"
    return (
        f"{' '.join(arguments)}: {first_line(error)}; type settings as for sweep.py, such as "
        "data=fineweb_edu data.tokens=16e9"
    )


def run(arguments: list[str], verify: bool) -> None:
    """Prepare a corpus and print what is there.

    Raises UserError, among others where the source has fewer tokens than asked for, and
    PreparationStopped.
    """
    data, workers = settings(arguments)
    stop: list[int] = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: stop.append(number))
    how = How(workers or cores(), verify=verify, should_stop=lambda: bool(stop))
    for logger in SAID_BY_REPORT:
        logging.getLogger(logger).addHandler(logging.NullHandler())
    data = with_fingerprint(data)
    if is_sharded(data):
        refuse_unreadable([data])
    try:
        corpus = prepare(data, how=how)
    except ConfigError:
        refuse_unreadable([data])  # names every file; whole corpora are not read twice for it
        raise
    for line in report(data, corpus):
        print(line)
    refuse_too_few(data)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def report(data: DataConfig, corpus: Corpus) -> list[str]:
    """What is there, and which rows hold no text."""
    meta = corpus.meta
    lines = [
        f"{corpus.folder}: {meta.train_tokens:,} training tokens and {meta.val_tokens:,} held out, "
        f"of {meta.train_documents + meta.val_documents:,} documents; "
        f"{disk_bytes(corpus.folder) / 1e9:.3g} GB"
    ]
    if not corpus.complete:
        lines.append("the corpus has more: type a larger data.tokens, nothing changes for runs")
    if data.tokenizer == "train" and (entries := corpus.tokenizer().entries) < data.vocab_size:
        lines.append(unused_entries(data.vocab_size, entries))
    if left_out := known(data).tally.report():
        lines.append(left_out)
    return lines


def disk_bytes(folder: Path) -> int:
    """Bytes that a folder of tokens takes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
