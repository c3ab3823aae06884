"""Typed parts of JSON files that keep what they do not know."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

OPTIONAL = {"optional": True}  # metadata of a field whose key is left out where it is None

NAMES: dict[type, str] = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    tuple: "a list",
    NoneType: "null",
}


class WrongValue(ValueError):
    """A key that does not hold what its field is; the message says which, what and what instead."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A JSON object: each field of a subclass is a key; keys without a field are in `extra`.

    Reading and writing again keeps every key, its order and its absence, so that a file that
    another version wrote survives. A key whose value is of another type than its field is refused.
    """

    extra: dict[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Raises WrongValue for a key of another type, or where a needed one is missing."""
        known = _kinds(cls)
        if missing := [name for name in _needed(cls) if name not in values]:
            raise WrongValue(f"{missing[0]!r} is missing")
        for name, value in values.items():
            if name in known and not _fits(value, known[name]):
                wanted = " or ".join(dict.fromkeys(NAMES[kind] for kind in known[name]))
                raise WrongValue(f"{name!r} should be {wanted} and is {json.dumps(value)[:80]}")
        given = {name: cls.read(name, value) for name, value in values.items() if name in known}
        extra = {name: value for name, value in values.items() if name not in known}
        return cls(**given, extra=extra, order=tuple(values))

    def has(self, name: str) -> bool:
        """Whether the file that it was read from has this key."""
        return self.order is None or name in self.order

    def to_dict(self) -> dict[str, Any]:
        known = self.keys()
        names = self.order if self.order is not None else (*self._set_keys(), *self.extra)
        return {
            name: _plain(getattr(self, name)) if name in known else self.extra[name]
            for name in names
        }

    def _set_keys(self) -> list[str]:
        unset = [
            f.name
            for f in dataclasses.fields(self)
            if f.metadata.get("optional") and getattr(self, f.name) is None
        ]
        return [name for name in self.keys() if name not in unset]

    @classmethod
    def keys(cls) -> list[str]:
        """The keys that have a field, in their order."""
        return [f.name for f in dataclasses.fields(cls) if f.name not in ("extra", "order")]

    @classmethod
    def read(cls, name: str, value: Any) -> Any:
        """A key's value as its field holds it; subclasses read nested parts here."""
        return value


def _needed(part: type[Part]) -> list[str]:
    """Fields without a default."""
    missing = dataclasses.MISSING
    fields = dataclasses.fields(part)
    return [f.name for f in fields if f.default is missing and f.default_factory is missing]


_KINDS: dict[type, dict[str, tuple[type, ...]]] = {}


def _kinds(part: type[Part]) -> dict[str, tuple[type, ...]]:
    """The types of JSON values that each field holds: a nested part is an object."""
    if part not in _KINDS:
        hints, names = get_type_hints(part), part.keys()
        _KINDS[part] = {name: tuple(map(_kind, _members(hints[name]))) for name in names}
    return _KINDS[part]


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _kind(hint: Any) -> type:
    kind = get_origin(hint) or hint
    return dict if isinstance(kind, type) and issubclass(kind, Part) else kind


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    if is_number(value):
        return int in kinds or float in kinds
    return isinstance(value, kinds) or (isinstance(value, list) and tuple in kinds)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number; NaN and infinities are."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
