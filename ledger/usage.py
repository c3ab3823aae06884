"""Mistakes on a command line, each as one sentence and exit code 2, for every typer app here.

An app has them by `typer.Typer(cls=Group)` with `class Group(OneSentence, TyperGroup)`. The errors
and parameters are typer's; only their attributes are used, since the ledger imports nothing.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

ALIKE = 0.6  # of the letters of two names
NUMBERS: dict[Any, str] = {int: "20", float: "0.5"}  # of options without an example of their own


class OneSentence:
    """Mixed into a typer group: what cannot be read is said once, with the value and what to type.

    An option that takes one value and has two is refused: the first would be dropped.
    """

    def make_context(self, *given: Any, **more: Any) -> Any:
        with _said_once():
            return super().make_context(*given, **more)  # type: ignore[misc]

    def invoke(self, ctx: Any) -> Any:
        with _said_once():
            return super().invoke(ctx)  # type: ignore[misc]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)  # type: ignore[misc]
        own = type(ctx)(command, info_name=name, parent=ctx, **command.context_settings)
        try:
            given, more, order = command.make_parser(own).parse_args(list(rest))
        except Exception as error:
            error.ctx = own  # type: ignore[attr-defined]  # typer leaves it out of some
            raise
        single = [one for one in order if not one.multiple and one.opts[0].startswith("-")]
        twice = [one for one in single if single.count(one) > 1]
        if "help" in given:
            return name, command, rest
        if twice:
            option = twice[0].opts[0]
            kept = "" if getattr(twice[0], "is_flag", False) else f" {given[twice[0].name]}"
            _refuse(self.twice(own, option, f"{option}{kept}"))
        if more:
            _refuse(self.too_many(own, given, more))
        return name, command, rest

    def twice(self, ctx: Any, option: str, last: str) -> str:
        """What to say of an option that is given twice; `last` is how it was typed last."""
        return f"{option} is given twice and counts once: type {last} only"

    def too_many(self, ctx: Any, given: dict[str, Any], more: list[str]) -> str:
        """What to say of arguments that a command has no place for, beside what it was given."""
        return f"{' '.join(more)}: {ctx.command_path} takes no such argument; leave it out"


def sentence(error: Any) -> str:
    """An error of typer's as one sentence: the option, its value and what to type."""
    ctx, kind = getattr(error, "ctx", None), type(error).__name__
    command = ctx.command_path if ctx is not None else ""
    if kind == "NoSuchOption":
        alike = (one for one in error.possibilities or () if _alike(error.option_name, one))
        near = " or ".join(sorted(alike))
        way = f"type {near}" if near else f"type {command} --help for those that it has"
        return f"{error.option_name}: {command} has no such option; {way}"
    if kind == "BadOptionUsage":
        example = _example(ctx, error.option_name)
        return f"{error.option_name} needs a value: type {error.option_name} {example}"
    parameter = getattr(error, "param", None)
    if parameter is None:
        said = error.format_message().strip().rstrip(".?").replace(". Did", ": did")
        return f"{said}; type {command} --help"
    return _of_value(error, ctx, parameter)


def _alike(typed: str, option: str) -> bool:
    """Whether an option could have been meant: typer also offers what shares a few letters."""
    one, other = typed.strip("-"), option.strip("-")
    ratio = difflib.SequenceMatcher(None, one, other).ratio()
    return ratio >= ALIKE or (len(one) > 1 and other.startswith(one))


def _of_value(error: Any, ctx: Any, parameter: Any) -> str:
    option = parameter.opts[0]
    named = option if option.startswith("-") else (parameter.metavar or option).strip("{}")
    typed = f"{option} {_example(ctx, option)}" if option.startswith("-") else named
    if type(error).__name__ == "MissingParameter":
        told = (getattr(parameter, "help", None) or "").replace("\\", "")
        told = re.split(r"(?<!\.)\. ", told)[0]
        about = f" ({told.rstrip('.')})" if told else ""
        return f"{named} is missing: type {ctx.command_path} with {typed}{about}"
    details = _details(error)
    value = f"={details['input']}" if "input" in details else ""
    choices = parameter.type_descriptor.choices
    if choices:
        return f"{named}{value}: there is no such choice; type one of {', '.join(choices)}"
    limits = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}
    if (kind := details.get("type")) in limits:
        words, key = limits[kind]
        return f"{named}{value}: it has to be {words} {details['ctx'][key]:g}; type {typed}"
    said = str(error.message).removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return f"{named}{value}: it {said}; type {typed}"


def _details(error: Any) -> dict[str, Any]:
    """What pydantic says of a value: its input, the kind of mistake and the limit."""
    cause = error.__cause__
    found = cause.errors() if cause is not None and hasattr(cause, "errors") else []
    return dict(found[0]) if found else {}


def _example(ctx: Any, option: str) -> str:
    """A value for an option: its default, else one of the examples in the help."""
    command = ctx.command
    parameter = next((one for one in command.params if option in one.opts), None)
    if parameter is not None and isinstance(parameter.default, int | float | str):
        return str(parameter.default)
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    helps = [command.epilog, command.help, ctx.parent.command.help if ctx.parent else None]
    text = " ".join(part for part in helps if part)
    found = re.search(rf"{re.escape(option)} ('[^']*'|[^\s\[]+)", text)
    if found:
        return found[1]
    return getattr(parameter, "metavar", None) or NUMBERS.get(annotation) or "VALUE"


@contextmanager
def _said_once() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not hasattr(error, "format_message") or type(error).__name__ == "NoArgsIsHelpError":
            raise  # none of typer's, or the help that was asked for
        _refuse(sentence(error))


def _refuse(said: str) -> NoReturn:
    print(f"error: {said}", file=sys.stderr)
    raise SystemExit(2)
