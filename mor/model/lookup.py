"""Finding a component by the name that a setting gives, and the checks that all components use."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from mor.config import ConfigError

T = TypeVar("T")


def lookup(setting: str, name: str, registry: Mapping[str, T]) -> T:
    """The component that a setting names. Raises ConfigError for an unknown name."""
    one_of(setting, name, registry)
    return registry[name]


def one_of(setting: str, value: str, allowed: Collection[str]) -> None:
    """Raises ConfigError unless the value is one of the allowed ones."""
    if value not in allowed:
        raise ConfigError(setting, value, "not known", "choose one of " + ", ".join(allowed))


def positive(setting: str, value: float | None) -> None:
    """Raises ConfigError unless the value is above 0, or unset."""
    if value is not None and not value > 0:  # as NaN is not
        raise ConfigError(setting, value, "must be above 0", f"set {setting} to a positive number")


def not_negative(setting: str, value: float | None) -> None:
    """Raises ConfigError unless the value is 0 or more, or unset."""
    if value is not None and not value >= 0:
        raise ConfigError(setting, value, "must be 0 or more", f"type {setting}=0 or a larger one")


def load_module(path: str) -> Any:
    """The torch half of a component, by its `package.module:name`; imported when it is built."""
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)
