"""Hydra's errors as one sentence: the setting, its value and what to type instead."""

from __future__ import annotations

import re

from mor.config import did_you_mean
from sweeps.config import known_settings


def explain(error: BaseException) -> str:
    """One sentence for an error that Hydra or OmegaConf raised on the command line."""
    text = " ".join(str(link) for link in _chain(error))
    if match := re.search(r"Could not override '([^']+)'", text):
        return f"{match[1]}: no such setting; {did_you_mean(match[1], known_settings())}"
    if match := re.search(r"Could not find '([\w-]+)/([^']+)'.*?options in [^:]+:(.*)", text, re.S):
        options = re.findall(r"[\w.-]+", match[3].split("Config search path")[0])
        return f"{match[1]}={match[2]}: not known; choose one of " + ", ".join(options)
    if match := re.search(r"Could not override '?(\S+?)'?\. No match in the defaults list", text):
        return f"{match[1]}: no such group; {did_you_mean(match[1], known_settings())}"
    if match := re.search(r"Sweep parameters '([^']+)' requires --multirun", text):
        return f"{match[1]}: several values are a study; add -m"
    if match := re.search(r"[Aa]mbiguous value for argument '([^']+)'", text):
        return f"{match[1]}: several values are a study; add -m"
    first = str(error).strip().splitlines()
    return (first[0] if first else type(error).__name__) + "; see python sweep.py --help"


def _chain(error: BaseException | None) -> list[BaseException]:
    links = []
    while error is not None:
        links.append(error)
        error = error.__cause__ or error.__context__
    return links
