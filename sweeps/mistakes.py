"""Hydra's errors as one sentence: the setting, its value and what to type instead."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.errors import OverrideParseException
from yaml import MarkedYAMLError

from ledger.errors import UserError
from mor.config import did_you_mean
from mor.model.components import settings_of_components
from sweeps.config import known_settings
from sweeps.typed import quoted_form

SHELLS = r"(install|uninstall|query)=(bash|fish|zsh)"


class RunStopped(UserError):
    """No mistake: a run was asked to stop; the message says how to go on."""


def flags_first(arguments: list[str]) -> list[str]:
    """The command line with -m in front, so that settings may stand on both sides of it.

    Raises UserError for a flag that Hydra does not know; its own words would be a page of usage.
    """
    known = get_args_parser()._option_string_actions
    for argument in arguments:
        if argument.startswith("-") and argument.split("=")[0] not in known:
            raise UserError(
                f"{argument}: no such flag; settings are key=value without dashes, -m makes a "
                "study, and python sweep.py --help lists the rest"
            )
    many = [a for a in arguments if a in ("-m", "--multirun")]
    ordered = many[:1] + [a for a in arguments if a not in many]
    _refuse_flags(ordered)
    return ordered


class _Flags(argparse.ArgumentParser):
    """Hydra's flags; one that cannot be read is a sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(
            f"{message}; flags stand in front of the settings, and python sweep.py --hydra-help "
            "lists them"
        )


def _refuse_flags(arguments: list[str]) -> None:
    """Raises UserError for flags that Hydra would end with an error of its own."""
    given = _Flags(parents=[get_args_parser()], add_help=False).parse_args(arguments)
    if given.help:
        return
    if given.resolve and given.cfg is None:
        raise UserError("--resolve: it goes with --cfg; type --cfg job --resolve")
    if given.hydra_help:
        return
    commands = {
        "-m": given.multirun,
        "--run": given.run,
        "--cfg": given.cfg,
        "--info": given.info,
        "--shell-completion": given.shell_completion,
    }
    chosen = [flag for flag, there in commands.items() if there]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)}: one of them at a time; leave {chosen[0]} out")
    shells = [one for one in given.overrides if re.fullmatch(SHELLS, one)]
    if given.shell_completion and len(shells) != 1:
        raise UserError("--shell-completion: which shell is missing; add install=bash")


def _as_mapping(override: str) -> str:
    """`a.8b.c=1` as 'a={8b: {c: 1}}', which Hydra reads; "" where no name begins with a digit."""
    key, _, value = override.partition("=")
    first = re.search(r"\.(?=\d)", key)
    if first is None or not value:
        return ""
    names = re.findall(r"\d+(?:\.\d\w*)*\w*|\w+", key[first.end() :])
    for name in reversed(names):
        value = f"{{{name}: {value}}}"
    return f"'{key[: first.start()]}={value}'"


def explain(error: BaseException) -> str:
    """One sentence for an error that Hydra or OmegaConf raised on the command line."""
    text = " ".join(str(link) for link in _chain(error))
    if match := re.search(r"Could not override '(scale)'.*?(scale=[\w.-]+)", text, re.S):
        return f"{match[1]}: a study has none of its own; type +{match[2]}"
    if match := re.search(r"Could not override '([^']+)'", text):
        inside = re.search(rf"full_key: ({re.escape(match[1])}\.\S+)", text)  # of a mapping
        name = inside[1] if inside else match[1]
        return f"{name}: no such setting; {_nearest(name)}"
    if isinstance(error, OverrideParseException):
        if quoted := quoted_form(error.override):
            return f"{error.override}: cannot be read without quotes; type {quoted}"
        if mapping := _as_mapping(error.override):
            return f"{error.override}: no name before = may begin with a digit; type {mapping}"
        return (
            f"{error.override}: cannot be read; type key=value, a list as 'key=[a,b]', and several "
            "values of a study as key=a,b"
        )
    if match := re.search(r"Could not find '([\w-]+)/([^']*)'.*?options in [^:]+:(.*)", text, re.S):
        options = re.findall(r"[\w.-]+", match[3].split("Config search path")[0])
        return f"{match[1]}={match[2]}: not known; choose one of " + ", ".join(options)
    if match := re.search(r"Could not override '?(\S+?)'?\. No match in the defaults list", text):
        return f"{match[1]}: no such group; {_nearest(match[1])}"
    if match := re.search(r"Sweep parameters '([^']+)' requires --multirun", text):
        quoted = quoted_form(match[1])
        one = f", or for one value type {quoted}" if quoted else ""
        return f"{match[1]}: several values are a study; add -m{one}"
    if match := re.search(r"[Aa]mbiguous value for argument '([^']+)'", text):
        return f"{match[1]}: several values are a study; add -m"
    first = str(error).strip().splitlines()
    return (first[0] if first else type(error).__name__) + "; see python sweep.py --help"


def explain_yaml(error: MarkedYAMLError) -> str:
    """One sentence for a configuration file that is no YAML, as an own size or study may be."""
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}, line {mark.line + 1}" if mark else "a configuration file"
    return f"{where}: cannot be read as YAML ({error.problem}); correct that line"


def _nearest(name: str) -> str:
    """What to type instead: a name without dots is first of all a group or a top-level setting."""
    components = settings_of_components()
    if chooser := components.get(name):
        return f"models of {chooser} have it"
    names = [*known_settings(), *components]
    if name in names:  # a file of one's own, or a ~ before it
        return f"the chosen groups leave it out; type ++{name}=..."
    tops = {known.split(".")[0] for known in names}
    return did_you_mean(name, names if "." in name else tops)


def _chain(error: BaseException | None) -> list[BaseException]:
    links = []
    while error is not None:
        links.append(error)
        error = error.__cause__ or error.__context__
    return links
