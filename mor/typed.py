"""Text on the command line: a setting that takes a text has the text that was typed.

Hydra reads `2026_11_25` as a whole number, `1.10` as 1.1, `7e23412` as infinity and `null` as
nothing, whatever the setting. Here such values are put in quotes before Hydra sees them, where the
setting is a text or a list of texts. `null` still unsets a setting that may be unset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from mor.command_line import in_quotes, in_shell

_KEY = re.compile(r"(\+{0,2}([\w.-]+)=)(.*)", re.DOTALL)
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True)
class Texts:
    """The settings that take a text or a list of texts."""

    known: Mapping[str, bool]  # by dotted name: whether null unsets it
    flags: str | None = None  # a prefix under which any name takes a text, true, false or null

    def as_typed(self, arguments: list[str]) -> list[str]:
        """The command line with quotes around texts that Hydra would read as something else."""
        return [self._argument(argument) for argument in arguments]

    def quoted_form(self, argument: str) -> str | None:
        """What to type in a shell where Hydra cannot read a text; None where no text is
        expected."""
        match = _KEY.fullmatch(argument)
        if match is None or not self._takes_text(match[2]):
            return None
        value, listed = match[3], match[3].startswith("[")
        inner = _elements(value) if listed else [value]
        texts = ",".join(part if _QUOTED.fullmatch(part) else in_quotes(part) for part in inner)
        typed = match[1] + (f"[{texts}]" if listed else texts)
        return in_shell(typed)

    def _argument(self, argument: str) -> str:
        match = _KEY.fullmatch(argument)
        if match is None or not self._takes_text(match[2]):
            return argument
        kept = ["null"] if self.known.get(match[2], True) else []
        if self._is_flag(match[2]):
            kept += ["true", "false"]
        return match[1] + _values(match[3], kept)

    def _takes_text(self, key: str) -> bool:
        return key in self.known or self._is_flag(key)

    def _is_flag(self, key: str) -> bool:
        return self.flags is not None and key.startswith(self.flags)


def _elements(text: str) -> list[str]:
    """What stands between the commas of a list, those in quotes left alone; a quote that is part of
    a name (`it's`) hides no comma."""
    inner = text[1:].removesuffix("]")
    parts = re.split(r"""\s*,\s*(?=(?:'[^']*'|"[^"]*"|[^'"])*$)""", inner.strip())
    quoted = any(_QUOTED.fullmatch(part) for part in parts)
    return parts if quoted else [part.strip() for part in inner.split(",")]


def _values(text: str, kept: list[str]) -> str:
    """Values of an axis, lists and single ones, each as text; those `kept` stay as they are."""
    return ",".join(_value(part, kept) for part in _split(text))


def _value(text: str, kept: list[str]) -> str:
    bare = text.strip()
    for opening, closing in (("[", "]"), ("choice(", ")")):
        if bare.startswith(opening) and bare.endswith(closing):
            return opening + _values(bare[len(opening) : -1], kept) + closing
    if bare.lower() in kept:
        return text
    try:
        override = OverridesParser.create().parse_override(f"x={bare}")
    except HydraException:
        return text  # Hydra says what is wrong with it
    if override.is_sweep_override() or not bare:
        return text
    read = override.value()
    return in_quotes(bare) if read is None or isinstance(read, bool | int | float) else text


def _split(text: str) -> list[str]:
    """Parts between commas that stand in no brackets and no quotes."""
    parts, closing, quote, at = [""], [""], "", 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            char = text[at : at + 2]
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _BRACKETS:
            closing.append(_BRACKETS[char])
        elif char == closing[-1]:
            closing.pop()
        at += len(char)
        if char == "," and len(closing) == 1 and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return parts
