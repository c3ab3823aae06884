"""`config.yaml` of a run's folder: the resolved configuration."""

from __future__ import annotations

import yaml

from ledger.damage import set_aside
from ledger.errors import UserError
from ledger.files import check_schema, write_atomically
from ledger.folder import SCHEMA, RunFolder
from mor.config import Config, from_dict, to_dict


def create_folder(folder: RunFolder, config: Config) -> None:
    """Make a run's folder and write the resolved configuration, unless it is there and whole."""
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    if folder.config_file.exists() and not _whole(folder):
        set_aside(folder.config_file)
    if not folder.config_file.exists():
        text = yaml.safe_dump({"schema": SCHEMA, **to_dict(config)}, sort_keys=False)
        write_atomically(folder.config_file, text)


def _whole(folder: RunFolder) -> bool:
    """Whether the configuration can be read, or is one of another version."""
    try:
        values = yaml.safe_load(folder.config_file.read_text())
        known = isinstance(values, dict) and isinstance(values.get("schema"), int)
        if known and values["schema"] == SCHEMA:
            read_config(folder)
    except (yaml.YAMLError, UserError, ValueError):
        return False
    return known


def read_config(folder: RunFolder) -> Config:
    """The resolved configuration of a run. Raises LedgerVersionError, ConfigError."""
    values = yaml.safe_load(folder.config_file.read_text())
    check_schema(values, SCHEMA, folder.config_file)
    return from_dict(Config, {k: v for k, v in values.items() if k != "schema"})
