"""Typed parts of JSON files that keep what they do not know."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
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
# The types that `json` makes of a value of each kind.
JSON: dict[type, tuple[type, ...]] = {
    **{kind: (kind,) for kind in (str, bool, dict, NoneType)},
    **dict.fromkeys((int, float), (int, float)),
    tuple: (list, tuple),
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
        shape = _shape(cls)
        if missing := shape.needed - values.keys():
            raise WrongValue(f"{min(missing)!r} is missing")
        given: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, value in values.items():
            accepted = shape.accepted.get(name)
            if accepted is None:
                extra[name] = value
                continue
            if type(value) not in accepted and not _fits(value, accepted):
                wanted = " or ".join(shape.names[name])
                raise WrongValue(f"{name!r} should be {wanted} and is {json.dumps(value)[:80]}")
            given[name] = cls.read(name, value) if isinstance(value, (dict, list)) else value
        # What `cls(**given)` makes, without a frozen dataclass's call for each field: that takes
        # two thirds of the time for 10,000 results.
        part = object.__new__(cls)
        for name, make in shape.defaults.items():
            if name not in given:
                given[name] = make()
        vars(part).update(given, extra=extra, order=tuple(values))
        return part

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
        """An object or a list as its field holds it; subclasses read nested parts here."""
        return value


@dataclass(frozen=True)
class _Shape:
    """What the keys of a part hold."""

    needed: frozenset[str]  # fields without a default
    defaults: dict[str, Callable[[], Any]]  # of the other ones
    accepted: dict[str, frozenset[type]]  # types of JSON values, by key
    names: dict[str, list[str]]  # the same in words


_SHAPES: dict[type[Part], _Shape] = {}


def _shape(part: type[Part]) -> _Shape:
    if part not in _SHAPES:
        _SHAPES[part] = _shape_of(part)
    return _SHAPES[part]


def _shape_of(part: type[Part]) -> _Shape:
    hints, names = get_type_hints(part), part.keys()
    fields = {f.name: f for f in dataclasses.fields(part) if f.name in names}
    kinds = {name: [_kind(hint) for hint in _members(hints[name])] for name in fields}
    defaults = {name: _default(f) for name, f in fields.items()}
    return _Shape(
        frozenset(name for name, make in defaults.items() if make is None),
        {name: make for name, make in defaults.items() if make is not None},
        {name: frozenset(t for kind in of for t in JSON[kind]) for name, of in kinds.items()},
        {name: list(dict.fromkeys(NAMES[kind] for kind in of)) for name, of in kinds.items()},
    )


def _default(of: dataclasses.Field[Any]) -> Callable[[], Any] | None:
    """What makes a field's default value; None: it has none."""
    if of.default_factory is not dataclasses.MISSING:
        return of.default_factory
    return None if of.default is dataclasses.MISSING else lambda: of.default


def _fits(value: Any, accepted: frozenset[type]) -> bool:
    """Values that no file held: NumPy's floats are Python's."""
    return isinstance(value, tuple(accepted)) and not isinstance(value, bool)


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _kind(hint: Any) -> type:
    kind = get_origin(hint) or hint
    return dict if isinstance(kind, type) and issubclass(kind, Part) else kind


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number; NaN and infinities are."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
