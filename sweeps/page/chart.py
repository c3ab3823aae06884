"""Learning curves as SVG, drawn here so that the page needs no script: a panel for each model.

x: FLOPs spent (log), y: loss (nats per token on the left, bits per byte on the right where the runs
say how many bytes a token has). Lines: training loss; dots: validations on the way; ring: the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 360, 250  # of a panel, in pixels: a phone shows one at its full size
LEFT, RIGHT, TOP, BOTTOM = 44, 44, 26, 40
COLOURS = 8  # classes s0 ... s7 of the style sheet
TICKS = 5  # on an axis at most
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One run or trunk."""

    name: str
    colour: int
    training: Sequence[Point]  # (FLOPs, nats per token)
    validation: Sequence[Point]
    end: Point | None = None  # of a finished run: its validation loss


@dataclass(frozen=True)
class Mark:
    """A dot or a ring, with the words that a pointer shows."""

    x: float
    y: float
    colour: int
    ring: bool
    words: str


@dataclass(frozen=True)
class Tick:
    at: float  # pixels
    text: str


@dataclass(frozen=True)
class Panel:
    """What the template writes down: pixels and words, no more arithmetic."""

    title: str
    lines: list[tuple[int, bool, str]]  # colour, dashed, points of a polyline
    marks: list[Mark]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    bits: list[Tick]  # on the right
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def panel(title: str, series: Sequence[Series], bits_a_nat: float | None) -> Panel | None:
    """A panel; None where no series has a point. `bits_a_nat`: bits per byte of one nat a token."""
    points = [p for s in series for p in (*s.training, *s.validation, *([s.end] if s.end else []))]
    if not points:
        return None
    xs, ys = [math.log10(x) for x, _ in points], [y for _, y in points]
    across = _Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = _Scale(min(ys), _shown(ys), HEIGHT - BOTTOM, TOP)

    def place(point: Point) -> Point:
        return across(math.log10(point[0])), up(point[1])

    lines, marks = [], []
    for one in series:
        for path, dashed in ((one.training, True), (one.validation, False)):
            for piece in _below_the_top([place(point) for point in path]):
                text = " ".join("{:.1f},{:.1f}".format(*point) for point in piece)
                lines.append((one.colour, dashed, text))
        dots = [(point, False) for point in one.validation]
        for point, ring in [*dots, *([(one.end, True)] if one.end else [])]:
            told = f", {point[1] * bits_a_nat:.4f} bits per byte" if bits_a_nat else ""
            words = f"{one.name}: {point[1]:.4f} nats per token{told} at {point[0]:.3g} FLOPs"
            x, y = place(point)
            marks.append(Mark(x, max(TOP, y), one.colour, ring, words))
    decades = _decades(10**across.low, 10**across.high)
    x_ticks = [
        Tick(across(math.log10(value)), f"{value:.0e}".replace("e+", "e")) for value in decades
    ]
    y_ticks = [Tick(up(value), f"{value:g}") for value in _round(up.low, up.high)]
    bits = []
    if bits_a_nat:
        marked = _round(up.low * bits_a_nat, up.high * bits_a_nat)
        bits = [Tick(up(value / bits_a_nat), f"{value:g}") for value in marked]
    return Panel(title, lines, marks, x_ticks, y_ticks, bits)


def _below_the_top(path: Sequence[Point]) -> list[list[Point]]:
    """The pieces of a line, in pixels, that lie in the panel: each begins and ends at its top where
    the line crosses it."""
    pieces: list[list[Point]] = []
    for (x, y), (next_x, next_y) in pairwise(path):
        if y < TOP and next_y < TOP:
            continue
        at = x + (next_x - x) * (TOP - y) / (next_y - y) if (y < TOP) != (next_y < TOP) else x
        begins = (at, float(TOP)) if y < TOP else (x, y)
        ends = (at, float(TOP)) if next_y < TOP else (next_x, next_y)
        if pieces and pieces[-1][-1] == begins:
            pieces[-1].append(ends)
        else:
            pieces.append([begins, ends])
    return pieces


class _Scale:
    """A linear map with a margin of 5 % on both sides."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        beyond = (high - low or abs(high) or 1.0) * 0.05
        self.low, self.high = low - beyond, high + beyond
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)


def _shown(losses: list[float]) -> float:
    """The highest loss that is shown: the first steps, far above all others, run off the top."""
    ordered = sorted(losses)
    low, usual = ordered[0], ordered[math.floor(0.9 * (len(ordered) - 1))]
    return min(ordered[-1], low + 1.6 * max(usual - low, 1e-9)) if len(losses) > 9 else ordered[-1]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten, with 3 (or 2 and 5) times them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for stride in range(1, 40):
        for digits in ((1, 2, 5), (1, 3), (1,)) if stride == 1 else ((1,),):
            powers = [p for p in range(first, last + 1) if p % stride == 0]
            inside = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
            if 0 < len(inside) <= TICKS:
                return inside
    return []


def _round(low: float, high: float) -> list[float]:
    """Round numbers in a range."""
    rough = (high - low) / TICKS
    unit = 10 ** math.floor(math.log10(rough))
    step = unit * next(m for m in (1, 2, 5, 10) if m * unit >= rough * 0.999)
    count = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [float(f"{n * step:.10g}") for n in count]
