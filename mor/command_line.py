"""Settings as they are typed in a shell, quoted where Hydra or the shell would read them otherwise.

Hydra's grammar takes letters, digits and a few signs without quotes; a path with a space, `=`, `#`,
`'`, a bracket or a comma needs them, and the shell needs a second pair around.
"""

from __future__ import annotations

import re
import shlex

_PLAIN = re.compile(r"[\w/.:@%*+|?-]+", re.ASCII)


def setting(key: str, text: str) -> str:
    """`key=text`, ready to be pasted into a shell."""
    if _PLAIN.fullmatch(text) and text.lower() != "null":
        plain = f"{key}={text}"
        return plain if re.fullmatch(r"[\w/.:@%+=-]+", plain, re.ASCII) else f"'{plain}'"
    return in_shell(f"{key}={in_quotes(text)}")


def in_quotes(text: str) -> str:
    """As Hydra quotes: a backslash only counts in front of a quote."""
    return "'" + text.replace("'", "\\'") + "'"


def in_shell(argument: str) -> str:
    """One argument of a shell; between double quotes where these change nothing."""
    changed = re.search(r'["$`!]|\\(?=[\\"$`]|$)', argument)
    return shlex.quote(argument) if changed else f'"{argument}"'
