"""Text on the command line: a setting that takes a text has the text that was typed.

Hydra reads `2026_11_25` as a whole number, `1.10` as 1.1, `7e23412` as infinity and `null` as
nothing, whatever the setting. Here such values are put in quotes before Hydra sees them, where the
schema says that the setting is a text. `null` still unsets a setting that may be unset, and the
flags of sbatch may be true, false and null.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from mor.command_line import in_quotes, in_shell
from mor.config import Config
from mor.model.components import RECURRENCES, ROUTERS
from mor.model.recurrence.spec import RecurrenceSpec
from mor.model.routers.spec import RouterSpec
from sweeps.config import SweepConfig, arms, settings_of

FLAGS = "launch.slurm.sbatch."  # any flag of sbatch, as text
_KEY = re.compile(r"(\+{0,2}([\w.-]+)=)(.*)", re.DOTALL)
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}


def as_typed(arguments: list[str]) -> list[str]:
    """The command line with quotes around texts that Hydra would read as something else."""
    return [_argument(argument) for argument in arguments]


def quoted_form(argument: str) -> str | None:
    """What to type in a shell where Hydra cannot read a text; None where no text is expected."""
    match = _KEY.fullmatch(argument)
    if match is None or not _takes_text(match[2]):
        return None
    value, listed = match[3], match[3].startswith("[")
    inner = _elements(value) if listed else [value]
    texts = ",".join(part if _QUOTED.fullmatch(part) else in_quotes(part) for part in inner)
    typed = match[1] + (f"[{texts}]" if listed else texts)
    return in_shell(typed)


def _elements(text: str) -> list[str]:
    """What stands between the commas of a list, those in quotes left alone; a quote that is part of
    a name (`it's`) hides no comma."""
    inner = text[1:].removesuffix("]")
    parts = re.split(r"""\s*,\s*(?=(?:'[^']*'|"[^"]*"|[^'"])*$)""", inner.strip())
    quoted = any(_QUOTED.fullmatch(part) for part in parts)
    return parts if quoted else [part.strip() for part in inner.split(",")]


@cache
def text_settings() -> dict[str, bool]:
    """Each setting that takes a text or a list of texts, by its dotted name: whether null unsets
    it."""
    found = dict(_texts(Config)) | dict(_texts(SweepConfig))
    specs: list[RecurrenceSpec | RouterSpec] = [*RECURRENCES.values(), *ROUTERS.values()]
    for spec in specs:
        if spec.options is not None:
            found |= dict(_texts(spec.options, "model."))
    return found


def _texts(cls: Any, path: str = "") -> Iterator[tuple[str, bool]]:
    for name, hint in settings_of(cls, path):
        allowed = arms(hint)
        if allowed in ([str], [tuple[str, ...]]):
            yield name, hint is not allowed[0]


def _takes_text(key: str) -> bool:
    return key in text_settings() or key.startswith(FLAGS)


def _argument(argument: str) -> str:
    match = _KEY.fullmatch(argument)
    if match is None or not _takes_text(match[2]):
        return argument
    kept = ["null"] if text_settings().get(match[2], True) else []
    if match[2].startswith(FLAGS):
        kept += ["true", "false"]
    return match[1] + _values(match[3], kept)


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
