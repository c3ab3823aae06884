"""Where a text may be cut so that its tokens stay the same: between words.

Byte-level encodings split a text into words by the regular expression of GPT-2 and join entries
inside a word only. A space or a line break between two letters begins a word whatever stands
around it, so a text may be cut before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

BETWEEN = re.compile(r"[^\W\d_](?=[ \n][^\W\d_])")
PART_CHARS = 2**17


def splits_words(form: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is such an encoding, alone or behind a splitting of digits."""
    before = form.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    *digits, last = steps
    special = all(added.get("special") for added in form.get("added_tokens") or [])
    return (
        special  # others are found in a text before it is split
        and form.get("normalizer") is None
        and all(step.get("type") == "Digits" for step in digits)
        and last.get("type") == "ByteLevel"
        and last.get("add_prefix_space") is False
        and last.get("use_regex", True) is True
    )


def at_words(parts: Iterable[str], size: int = 0) -> Iterator[str]:
    """A text in other parts, of about `size` (0: PART_CHARS) characters; each but the first begins
    a word."""
    size = size or PART_CHARS
    held, searched = "", 0
    for part in _at_most(parts, size):
        held += part
        if len(held) < size:
            continue
        cut = _last_between(held, searched)
        searched = len(held) - 2
        if cut:
            yield held[:cut]
            held, searched = held[cut:], 0
    if held:
        yield held


def _at_most(parts: Iterable[str], size: int) -> Iterator[str]:
    for part in parts:
        for start in range(0, len(part), size):
            yield part[start : start + size]


def _last_between(text: str, start: int) -> int:
    """The last place from `start` on where a text may be cut; 0: there is none."""
    cut = 0
    for begin in (len(text) - 2**10, len(text) - 2**16, start):
        for match in BETWEEN.finditer(text, max(start, begin, 0)):
            cut = match.end()
        if cut:
            break
    return cut
