"""Numbers as people write them in tables: 3e7, 30.000M, 30,000,000, and decimal commas.

A table is written in one way. Which one is decided by all of its cells together, because `3,623`
alone is 3623 to one reader and 3.623 to another.
"""

import math
import re
from collections.abc import Iterable

from analysis.errors import AnalysisError
from analysis.formatting import listing

SUFFIXES = {"k": 3, "m": 6, "b": 9, "g": 9, "t": 12}  # of counts, as powers of ten
_SPACES = " \u00a0\u202f\u2009_'’"  # between groups of three digits
_SUFFIXED = re.compile(rf"(.*[\d.,])\s*([{''.join(SUFFIXES)}])", re.IGNORECASE)
_EXPONENT = r"(?:[eE][+-]?\d+)?"
_SPACED = rf"\d{{1,3}}(?:[{_SPACES}]\d{{3}})+"
_FORMS = {  # by the decimal mark, whose opposite may stand between groups of three digits
    ".": re.compile(
        rf"[+-]?(?:(?:\d+|{_SPACED}|\d{{1,3}}(?:,\d{{3}})+)(?:\.\d*)?|\.\d+){_EXPONENT}"
    ),
    ",": re.compile(
        rf"[+-]?(?:(?:\d+|{_SPACED}|\d{{1,3}}(?:\.\d{{3}})+)(?:,\d*)?|,\d+){_EXPONENT}"
    ),
}


def number(text: str, decimal: str = ".", suffixes: bool = False) -> float:
    """The number in a cell, NaN where there is none; `suffixes`: a count may end in K, M, B or T.

    `decimal` is the mark, "." or ",".
    """
    power = 0
    if suffixes and (match := _SUFFIXED.fullmatch(text)):
        text, power = match[1], SUFFIXES[match[2].lower()]
    if not _FORMS[decimal].fullmatch(text) or (power and "e" in text.lower()):
        return math.nan
    plain = re.sub(rf"[{_SPACES}{',' if decimal == '.' else '.'}]", "", text).replace(",", ".")
    return float(f"{plain}e{power}") if power else float(plain)  # 0.521B is 521000000.0


def decimal_mark(losses: Iterable[str], others: Iterable[str], separator: str, source: str) -> str:
    """The decimal mark of a table, "." or ",", by its cells that hold numbers.

    Raises AnalysisError where cells contradict each other, or where none of them has it.
    """
    losses, cells = list(losses), [*losses, *others]
    read = {
        mark: [cell for cell in cells if not math.isnan(number(cell, mark, True))]
        for mark in _FORMS
    }
    points, commas = set(read["."]), set(read[","])
    if points - commas and commas - points:
        raise AnalysisError(
            f"{source} has numbers with a decimal point ({listing(sorted(points - commas), 2)}) "
            f"and with a decimal comma ({listing(sorted(commas - points), 2)}): write all of them "
            "with a point."
        )
    if points != commas:
        mark = "." if points - commas else ","
    else:
        mark = "," if separator != "," and any("," in cell for cell in points) else "."
    # no loss is above a thousand: 3,623 is a decimal comma in a table that has points elsewhere
    doubtful = cells if points == commas and mark == "," else losses
    grouping = "," if mark == "." else "."
    unclear = [cell for cell in doubtful if grouping in cell and cell in points | commas]
    if unclear:
        raise AnalysisError(
            f"{source} has numbers that can be read in two ways ({listing(unclear, 2)}): write "
            "them with a decimal point and nothing between groups of digits."
        )
    return mark
