"""`config.yaml` of a run's folder: the resolved configuration."""

from __future__ import annotations

import yaml

from ledger.damage import set_aside
from ledger.errors import DamagedFile, UserError
from ledger.files import check_schema, write_atomically
from ledger.folder import SCHEMA, RunFolder
from ledger.ids import is_trunk
from mor.config import Config, from_dict, to_dict
from mor.identity import run_id, trunk_id


def create_folder(folder: RunFolder, config: Config) -> None:
    """Make a run's folder and write the resolved configuration, unless it is there and whole."""
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    if folder.config_file.exists() and not _whole(folder, config):
        set_aside(folder.config_file)
    if not folder.config_file.exists():
        text = yaml.safe_dump({"schema": SCHEMA, **to_dict(config)}, sort_keys=False)
        write_atomically(folder.config_file, text)


def _whole(folder: RunFolder, config: Config) -> bool:
    """Whether the configuration that is there is of this very run or trunk, or of another version
    of this project."""
    try:
        values = yaml.safe_load(folder.config_file.read_text())
        schema = values.get("schema") if isinstance(values, dict) else None
        if not isinstance(schema, int) or schema != SCHEMA:
            return isinstance(schema, int)
        name = trunk_id if is_trunk(folder.run_id) else run_id
        return name(read_config(folder)) == name(config)
    except (yaml.YAMLError, UserError, ValueError, TypeError):
        return False


def read_config(folder: RunFolder) -> Config:
    """The resolved configuration of a run. Raises LedgerVersionError, ConfigError, DamagedFile."""
    try:
        values = yaml.safe_load(folder.config_file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        values = None
    if not isinstance(values, dict):
        raise DamagedFile(
            f"{folder.config_file}: not what was written; launch the run's study again, which "
            "writes a new one"
        )
    check_schema(values, SCHEMA, folder.config_file)
    return from_dict(Config, {k: v for k, v in values.items() if k != "schema"})
