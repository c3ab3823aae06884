"""The weights that a run begins with: drawn from its seed, or taken from a full model."""

from __future__ import annotations

from pathlib import Path

from ledger.folder import RunFolder
from mor.config import Config, ConfigError
from mor.model.exchange import load_compared
from mor.model.initialise import initialise
from mor.model.llama import ExchangeError
from mor.model.transformer import Transformer
from mor.train import checkpoint
from mor.train.checkpoint import CorruptCheckpoint, OtherModel
from mor.train.corpus import tokenizer_of_run
from mor.train.folder import CONFIG, read_config
from mor.train.origin import DEFAULT_METHOD, final_checkpoint, read_origin


class DamagedWeights(ExchangeError):
    """The final checkpoint of a run is not what was written."""


def initial_model(config: Config, separator: int | None) -> Transformer:
    """The model before its first step, on CPU. Raises ConfigError, ExchangeError."""
    model = Transformer(
        config.model, config.size, config.data.vocab_size, seed=config.seed, separator=separator
    )
    train = config.train
    if train.init_from is None:
        return model
    folder = Path(train.init_from)
    if read_origin(folder)[1] != train.init_fingerprint:
        raise ConfigError(
            "train.init_from", folder, "its weights are not those of the plan", "plan again"
        )
    return initialise(
        model, trained_model(folder), train.init_method or DEFAULT_METHOD, config.seed
    )


def trained_model(folder: Path) -> Transformer:
    """The model of a finished run or of a folder of published weights, on CPU in float32.

    Raises ConfigError, ExchangeError.
    """
    read_origin(folder)  # refuses what is neither, and what is not what was written
    final = final_checkpoint(folder)
    if not final.exists():
        return load_compared(folder)
    run = RunFolder(folder)
    config = read_config(run)
    masks = config.model.document_mask
    separator = tokenizer_of_run(run, config.data).separator if masks else None
    model = Transformer(
        config.model, config.size, config.data.vocab_size, config.seed, separator=separator
    )
    try:
        checkpoint.load_model(final, model.state_dict())
    except OtherModel as other:
        raise ExchangeError(
            f"{folder}: checkpoints/{final.name} is of another model than {CONFIG} ({other}); one "
            "of the two was replaced: put back what the run wrote"
        ) from None
    except CorruptCheckpoint as error:
        raise DamagedWeights(
            f"{folder}: its weights are damaged ({error}); python -m sweeps retry {folder.name} "
            "makes them again"
        ) from None
    return model
