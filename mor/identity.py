"""What a run is: its identity fields, the hash over them, and the ids of runs and trunks.

The hash covers every identity field with its value, defaults included, never only what differs
from a default: a changed default must not keep an old id. Numbers are canonical first, so that
`5e18` and `5000000000000000000.0` are one budget, and settings that do nothing for this run are at
their defaults (`mor.canonical`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ledger.ids import run_name, trunk_name
from mor.canonical import canonical
from mor.config import Config

# What a plateau does not depend on: where it ends, how it cools down, how it is validated.
NOT_OF_THE_TRUNK = {("budget",), ("train", "cooldown_fraction"), ("train", "val_tokens")}


def identity(config: Config) -> dict[str, Any]:
    """Every identity field of a configuration, nested, with canonical values."""
    return _fields(canonical(config))


def _fields(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for f in dataclasses.fields(node):
        value = getattr(node, f.name)
        if f.metadata.get("inline"):
            found |= {} if value is None else _fields(value)
        elif _counts(f, value):
            found[f.name] = _canonical(value)
    return found


def _counts(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field is part of the identity: always, or where it is set or changed."""
    identity = field.metadata.get("identity", True)
    if identity == "where set":
        return value is not None
    return value != field.default if identity == "where changed" else bool(identity)


def _canonical(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _fields(value)
    if isinstance(value, tuple | list):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, float):
        return repr(value)
    return value


def run_id(config: Config) -> str:
    """`<model>-<size>-<budget>-<8 hex>`; the seed and everything else is in the hash."""
    return run_name(config.model.name, config.size.name, config.budget, identity(config))


def trunk_id(config: Config) -> str:
    """`<model>-<size>-trunk-<8 hex>`: shared by all budgets that cool down from one plateau."""
    fields = identity(config)
    for path in NOT_OF_THE_TRUNK:
        node = fields
        for key in path[:-1]:
            node = node[key]
        node.pop(path[-1])
    return trunk_name(config.model.name, config.size.name, fields)
