"""Settings that tell the runs of a plan apart where its other columns do not."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from ledger.settings import differing, flatten
from mor.canonical import canonical
from mor.config import Config
from mor.identity import identity

MOST = 4  # settings that are shown
UNSET = "-"  # of a setting that a run does not have


def telling_settings(
    configs: Sequence[Config], told: Sequence[Hashable], taken: Collection[str] = ()
) -> dict[str, list[str]]:
    """A value for each run, by a short name of each setting, in the order of the configuration.

    `told`: what is shown of each run already; runs that are alike in it are told apart, first by
    the settings that do most for it. `taken`: names that mean something else.
    """
    shared = Counter(told)
    at = [i for i, key in enumerate(told) if shared[key] > 1]
    if not at:
        return {}
    every = [_settings(config) for config in configs]
    known = list(dict.fromkeys(name for one in every for name in one))
    chosen = _chosen([every[i] for i in at], [told[i] for i in at], known)
    canon = [canonical(config) for config in configs] if chosen else []
    return {
        _short(name, [*known, *taken]): [
            _text(one[name] if name in one else _default(config, name))
            for one, config in zip(every, canon, strict=True)
        ]
        for name in known
        if name in chosen
    }


def _settings(config: Config) -> dict[str, Any]:
    """Its identity, and what people call the corpus that has a fingerprint there."""
    return {"data.name": config.data.name, **flatten(identity(config))}


def _chosen(
    settings: Sequence[Mapping[str, Any]], told: Sequence[Hashable], known: Sequence[str]
) -> list[str]:
    """Each one splits what those before it leave together. What all runs have comes first: the
    settings of one optimizer follow from its name."""
    left = differing(settings)
    values = {name: [repr(one.get(name)) for one in settings] for name in left}
    partial = {name for name in left if not all(name in one for one in settings)}
    left.sort(key=lambda name: (name in partial, known.index(name)))
    chosen: list[str] = []
    groups = told
    while len(chosen) < MOST and left:
        split = {name: list(zip(groups, values[name], strict=True)) for name in left}
        best = max(left, key=lambda name: len(set(split[name])))  # the first of equals
        if len(set(split[best])) == len(set(groups)):
            break
        chosen.append(best)
        left.remove(best)
        groups = split[best]
    return chosen


def _default(config: Config, name: str) -> Any:
    """Of a setting that is part of the identity only where it is changed."""
    try:
        return functools.reduce(getattr, name.split("."), config)
    except AttributeError:
        return UNSET


def _short(name: str, others: Collection[str]) -> str:
    """The last parts of a dotted name that no other one ends with."""
    parts = name.split(".")
    for first in range(len(parts) - 1, 0, -1):
        short = ".".join(parts[first:])
        if not any(f".{one}".endswith(f".{short}") for one in others if one != name):
            return short
    return name


def _text(value: Any) -> str:
    """As the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return str(value)
