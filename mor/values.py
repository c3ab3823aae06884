"""A single value of a setting, as its type wants it, and the sentence for one that is not."""

from __future__ import annotations

import math
import re
from typing import Any

from ledger.errors import UserError
from ledger.ids import budget_name

WORDS = {bool: "true or false", int: "a whole number", float: "a number"}
EXAMPLES = {
    **{"budget": "5e18", "tokens": "1e10", "seed": "0", "train.lr": "3e-3"},
    **{"data.tokens": "16e9", "train.batch_size": "64"},
}
LARGE = 1e6
SEEDS = 2**64  # that torch takes
OF_TYPE = {bool: "true", int: "8", float: "0.5"}
WITH_UNIT = re.compile(r"\s*([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*([kKmMbBgGtT]?)[A-Za-z]*\s*")
UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


class ConfigError(UserError):
    """An invalid setting: the message names it, its value and how to fix it."""

    def __init__(self, setting: str, value: object, problem: str, instead: str) -> None:
        super().__init__(setting, value, problem, instead)  # as pickle hands them on
        self.setting, self.value, self.problem, self.instead = setting, value, problem, instead

    def __str__(self) -> str:
        return f"{self.setting}={_shown(self.value)}: {self.problem}; {self.instead}"


def _shown(value: object) -> object:
    """A large number as people type it: 5e18."""
    if isinstance(value, float) and LARGE <= abs(value) < math.inf:
        return _typed(value) if float(_typed(value)) == value else value
    return value


def _typed(number: float) -> str:
    return budget_name(number) if abs(number) >= LARGE else f"{number:g}"


def scalar(hint: type, value: Any, name: str) -> Any:
    """A value as bool, int, float or str. Raises ConfigError."""
    if hint is bool:
        if isinstance(value, bool):
            return value
    elif hint is int or hint is float:
        found = _number(value)
        if found is not None and hint is float:
            return float(found)
        if found is not None and found == int(found):
            return int(found)
    elif hint is str:
        return text_of(name, value)
    example = _example(hint, value, name)
    raise ConfigError(name, value, f"expected {WORDS[hint]}", f"type {name}={example}")


def _example(hint: type, value: Any, name: str) -> str:
    """What to type: the same number without its unit, where it seems to have one."""
    match = WITH_UNIT.fullmatch(value) if isinstance(value, str) and hint is not bool else None
    if match:
        number = _number(match[1])
        if number is not None:
            meant = number * UNITS[match[2].lower()]
            if hint is float or meant == int(meant):
                return _typed(meant)
    return EXAMPLES.get(name, OF_TYPE[hint])


def needed(values: dict[str, Any], key: str, path: str = "") -> Any:
    """The value of a setting that has no default. Raises ConfigError where it is missing."""
    if key not in values:
        raise ConfigError(f"{path}{key}", "", "missing", f"set {path}{key}=...")
    return values[key]


def group_of(name: str, value: Any) -> dict[str, Any]:
    """A group of settings. Raises ConfigError for anything else."""
    if not isinstance(value, dict):
        raise ConfigError(name, value, "this is a group of settings", f"set {name}.<key>=...")
    return value


def text_of(name: str, value: Any) -> str:
    """A text as it was written. Raises ConfigError for anything else: where YAML has made a number
    of a text, 2024_05 has become 202405 and 1.10 has become 1.1."""
    if isinstance(value, str):
        return value
    raise ConfigError(
        name, value, "expected a text", f"put it in quotes, in YAML {name.split('.')[-1]}: '...'"
    )


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return None
