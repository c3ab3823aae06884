"""`config.yaml` of a run's folder: the resolved configuration."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import yaml

from ledger.damage import set_aside
from ledger.errors import DamagedFile, UserError
from ledger.files import check_schema, write_atomically
from ledger.folder import SCHEMA, RunFolder
from ledger.ids import is_trunk
from mor.config import Config, from_dict, to_dict
from mor.identity import identity, run_id, trunk_id

CONFIG = "config.yaml"
_HASH = re.compile(r"-([0-9a-f]{8})$")  # that ends an id


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
    except (yaml.YAMLError, UnicodeDecodeError, FileNotFoundError):
        values = None
    if not isinstance(values, dict):
        raise DamagedFile(
            f"{folder.config_file}: not what was written; launch the run's study again, which "
            "writes a new one"
        )
    check_schema(values, SCHEMA, folder.config_file)
    return from_dict(Config, {k: v for k, v in values.items() if k != "schema"})


def read_own_config(folder: RunFolder) -> Config:
    """The resolved configuration of a finished run, which has to give the run's own id: weights
    under other settings are another model. Raises UserError.

    The id stands in the result; where there is none, the folder's name may be it. A folder that
    was renamed and has no result has no id to compare with.
    """
    config = read_config(folder)
    result = None
    with contextlib.suppress(UserError):
        result = folder.result()
    written = result.run_id if result is not None and _HASH.search(result.run_id) else folder.run_id
    wanted, given = _HASH.search(written), _HASH.search(run_id(config))
    if wanted is None or given is None or wanted[1] == given[1]:
        return config
    changed = [] if result is None else list(_changed(result.settings, identity(config)))
    if changed:
        name, value, before = changed[0]
        raise UserError(
            f"{folder.config_file}: {name}={value} is not what the run {written} was trained with; "
            f"put {before} back"
        )
    raise UserError(
        f"{folder.config_file}: its settings are those of {run_id(config)}, not of the run "
        f"{written}; put the {CONFIG} of that run back"
    )


def _changed(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings whose values differ, by their dotted names: what they are, what they were."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            name = f"{path}.{key}" if path else str(key)
            yield from _changed(before.get(key), now.get(key), name)
    elif before != now:
        yield path, now, before
