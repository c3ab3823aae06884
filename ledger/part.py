"""Typed parts of JSON files that keep what they do not know."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

OPTIONAL = {"optional": True}  # metadata of a field whose key is left out where it is None


@dataclass(frozen=True, kw_only=True)
class Part:
    """A JSON object: each field of a subclass is a key; keys without a field are in `extra`.

    Reading and writing again keeps every key, its order and its absence, so that a file that
    another version wrote survives.
    """

    extra: dict[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        known = cls.keys()
        given = {name: cls.read(name, value) for name, value in values.items() if name in known}
        extra = {name: value for name, value in values.items() if name not in known}
        return cls(**given, extra=extra, order=tuple(values))

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


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
