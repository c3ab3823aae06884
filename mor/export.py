"""A trained model as a folder for transformers: weights, configuration, tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ledger.folder import RunFolder
from mor.config import UserError
from mor.data.fast_tokenizer import write_fast_tokenizer
from mor.data.hub import first_line
from mor.data.tokenizer import FILE, Tokenizer, kept_tokenizer
from mor.model.digests import digests_of, refuse_changed
from mor.model.exchange import save_for_transformers
from mor.model.llama import LLAMA, PRECISION, ExchangeError, read_json, whole_setting
from mor.model.transformer import Transformer
from mor.train.corpus import tokenizer_of_run
from mor.train.folder import read_config
from mor.train.origin import final_checkpoint
from mor.validate import PRECISIONS

GENERATION = "generation_config.json"
CONTEXT = "max_position_embeddings"


def export_for_transformers(source: Path, model: Transformer, folder: Path) -> None:
    """Write the model of `source` (a run, or published weights) to a new folder."""
    write_for_transformers(model, tokenizer_of(source), context_of(source), folder)
    if precision := trained_precision(source):  # never as dtype: the weights are float32
        _add(folder / LLAMA, {PRECISION: precision})


def write_for_transformers(
    model: Transformer, tokenizer: Tokenizer | None, context: int | None, folder: Path
) -> None:
    """Write a model and, where there is one, its tokenizer, whose separator ends a generation."""
    save_for_transformers(model, folder, context)
    if tokenizer is None:
        return
    write_fast_tokenizer(tokenizer, folder, context)
    ends = {"eos_token_id": tokenizer.separator, "pad_token_id": tokenizer.separator}
    _add(folder / LLAMA, ends)
    (folder / GENERATION).write_text(json.dumps(ends, indent=2) + "\n")


def tokenizer_of(source: Path) -> Tokenizer | None:
    """The tokenizer of a run's corpus, or the one beside published weights, if any.

    Raises UserError for one that cannot be read.
    """
    if final_checkpoint(source).exists():
        run = RunFolder(source)
        return tokenizer_of_run(run, read_config(run).data)
    if not (source / FILE).exists():
        return None
    refuse_changed(source, digests_of(source, [FILE]))
    try:
        return kept_tokenizer(source)
    except Exception as error:  # the library raises bare Exception
        raise UserError(
            f"{source / FILE}: no tokenizer that we can use ({first_line(error)}); remove it to "
            "export the weights alone"
        ) from error


def context_of(source: Path) -> int | None:
    """Tokens that it was trained on at a time, where that is known. Raises ExchangeError for what
    is no number of tokens."""
    if final_checkpoint(source).exists():
        return read_config(RunFolder(source)).train.seq_len
    config = read_json(source / LLAMA) if (source / LLAMA).exists() else {}
    if config.get(CONTEXT) is None:
        return None
    return whole_setting(source / LLAMA, config, CONTEXT)


def trained_precision(source: Path) -> str | None:
    """What a run was trained in, where its folder or its export says so. Raises ExchangeError."""
    if final_checkpoint(source).exists():
        return read_config(RunFolder(source)).train.precision
    file = source / LLAMA
    said = read_json(file).get(PRECISION) if file.exists() else None
    if said is not None and said not in PRECISIONS:
        raise ExchangeError(f"{file}: {PRECISION}={said}; give {' or '.join(PRECISIONS)}")
    return said


def _add(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps({**read_json(file), **values}, indent=2) + "\n")
