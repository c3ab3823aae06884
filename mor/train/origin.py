"""The full model that a run starts from (`train.init_from`), as planning sees it: its shape and a
fingerprint of its weights. No torch.

A folder is one of a finished run, or one of published weights (`mor.model.exchange`). Identity is
the fingerprint, never the path; the same weights exported have one of their own.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from ledger.damage import read_meta
from ledger.errors import DamagedFile
from ledger.folder import RunFolder
from mor.config import Config, SizeConfig
from mor.model.checks import check_start
from mor.model.digests import model_digests, refuse_changed
from mor.model.llama import LLAMA, OWN, ExchangeError, Shape, read_shape
from mor.starter import conf_folder
from mor.train.folder import read_own_config

DEFAULT_METHOD = "stepwise"


def final_checkpoint(folder: Path) -> Path:
    """Where a finished run keeps its weights."""
    return RunFolder(folder).final


def with_origin(config: Config) -> Config:
    """The configuration with what its initial weights are, filled in. Raises UserError."""
    train = config.train
    if train.init_from is None:
        return config
    folder = Path(train.init_from).expanduser().absolute()
    try:
        shape, fingerprint = read_origin(folder)
    except ExchangeError as mistake:
        said = str(mistake).removeprefix(f"{folder}: ")
        raise ExchangeError(f"train.init_from={train.init_from}: {said}") from None
    check_start(
        (shape.model, shape.size, shape.vocab_size),
        (config.model, config.size, config.data.vocab_size),
        given=train.init_from,
        size_file=_has_file(shape.size),
    )
    started = replace(
        train,
        init_from=str(folder),
        init_method=train.init_method or DEFAULT_METHOD,
        init_fingerprint=fingerprint,
    )
    return replace(config, train=started)


def _has_file(size: SizeConfig) -> bool:
    """Whether `size=<name>` means this very size here."""
    try:
        values = yaml.safe_load((conf_folder() / "size" / f"{size.name}.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return values == asdict(size)


@functools.cache
def read_origin(folder: Path) -> tuple[Shape, str]:
    """Shape and fingerprint (16 hex digits) of a model. Raises UserError."""
    digest = hashlib.sha256()
    if (final_checkpoint(folder) / "meta.json").exists():
        config = read_own_config(RunFolder(folder))
        try:
            meta = read_meta(final_checkpoint(folder))
        except DamagedFile as damage:
            raise ExchangeError(
                f"{folder}: its weights are damaged ({damage}); python -m sweeps retry "
                f"{folder.name} makes them again"
            ) from None
        digest.update(json.dumps(meta["files"], sort_keys=True).encode())
        shape = Shape(config.model, config.size, config.data.vocab_size)
    elif (folder / LLAMA).exists() or (folder / OWN).exists():
        digests = model_digests(folder)
        refuse_changed(folder, digests)
        shape = read_shape(folder)
        for name, hexadecimal in digests.items():
            if name.endswith(".safetensors"):
                digest.update(bytes.fromhex(hexadecimal))
    else:
        raise ExchangeError(
            f"{folder}: holds neither a finished run nor published weights; name runs/<run id> of "
            "one that is done, or a folder that python -m mor export wrote"
        )
    return shape, digest.hexdigest()[:16]
