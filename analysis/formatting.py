"""How numbers are written for people: 2e18, 42M, 0.497."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def compute(value: float) -> str:
    """A budget in FLOPs to four digits: 2e18, 1.65e19."""
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def typed(value: float) -> str:
    """A budget in FLOPs as it is typed on the command line, to the last digit: 2e18, 1.23456e18."""
    mantissa, exponent = f"{Decimal(repr(float(value))).normalize():e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def count(value: float) -> str:
    """Parameters or tokens to three digits: 42M, 1.61B, 950."""
    rounded = float(f"{value:.3g}")
    for size, suffix in _SUFFIXES:
        if rounded >= size:
            return f"{rounded / size:g}{suffix}"
    return f"{rounded:g}"


def listing(items: Iterable[object], most: int = 5) -> str:
    """`a, b, c and 7 more`: names enough to look up, not a wall of text."""
    names: Sequence[str] = [str(item) for item in items]
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def plural(number: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
