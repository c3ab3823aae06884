"""A run's settings by their dotted names, and which of them differ between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    _flatten(settings, "", flat)
    return flat


def _flatten(settings: Mapping[str, Any], path: str, flat: dict[str, Any]) -> None:
    for key, value in settings.items():
        if isinstance(value, dict):
            _flatten(value, f"{path}{key}.", flat)
        else:
            flat[path + key] = value


def differing(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the settings that do not have one value in all of some runs, sorted."""
    return [key for key in sorted(set().union(*runs)) if not _same(key, runs)]


def _same(key: str, runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all runs have the same value, of the same type: 1 is neither 1.0 nor true."""
    values = [run.get(key) for run in runs]
    first = values[0]
    alike = set(map(type, values)) == {type(first)} and values.count(first) == len(values)
    if alike and type(first) is not list:
        return True
    written = repr(first)
    return all(repr(value) == written for value in values)
