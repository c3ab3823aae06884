"""A large JSON list read entry by entry, so that it is not held as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

SPACE = " \t\n\r"


def entries(parts: Iterable[str]) -> Iterator[Any]:
    """The entries of the list that a text spells. Raises ValueError where it spells none, also
    behind entries that were yielded."""
    decode = json.JSONDecoder().raw_decode
    left = iter(parts)
    text, place = "", 0
    wanted = "["  # then an entry, and between two of them a comma or the end

    def more() -> bool:
        """Read on: as much again as there is, so that a long entry is not tried too often."""
        nonlocal text, place
        added, held = [text[place:]], len(text) - place
        size = 0
        while size <= held and (part := next(left, None)) is not None:
            added.append(part)
            size += len(part)
        if size:
            text, place = "".join(added), 0
        return size > 0

    while True:
        while place < len(text) and text[place] in SPACE:
            place += 1
        if place == len(text):
            if more():
                continue
            if wanted == "":
                return
            raise ValueError("it ends inside the list")
        sign = text[place]
        if wanted == "":
            raise ValueError("more follows behind the list")
        if wanted == "[":
            if sign != "[":
                raise ValueError("no list")
            wanted, place = "first", place + 1
        elif wanted == "," or (wanted == "first" and sign == "]"):
            if sign not in ",]":
                raise ValueError("a comma is missing between two entries")
            wanted, place = ("entry" if sign == "," else ""), place + 1
        else:
            try:
                entry, end = decode(text, place)
            except ValueError:
                if more():
                    continue
                raise
            if len(text) - end <= 2 and more():  # a number may go on: 1e+2
                continue
            yield entry
            wanted, place = ",", end
