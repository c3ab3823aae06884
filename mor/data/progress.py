"""How far the preparation of a corpus is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_S = 30.0  # seconds between lines in a log

# Called with the share that is done (None: unknown) and the tokens so far.
Report = Callable[[float | None, int], None]


@contextmanager
def reporting(title: str, shown: bool) -> Iterator[Report]:
    """Yield the function that reports progress to stderr, or one that says nothing."""
    if not shown:
        yield lambda share, tokens: None
    elif sys.stderr.isatty():
        with _bar(title) as report:
            yield report
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[tokens]:,} tokens"),
        TextColumn("{task.fields[rate]:,.0f} tokens/s"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None, tokens=0, rate=0.0)
        began, first = time.monotonic(), None

        def report(share: float | None, tokens: int) -> None:
            nonlocal first
            first = tokens if first is None else first
            rate = (tokens - first) / max(1e-9, time.monotonic() - began)
            total = None if share is None else 1.0
            done = min(share or 0.0, 1.0)
            progress.update(task, total=total, completed=done, tokens=tokens, rate=rate)

        yield report


def _lines(title: str) -> Report:
    start = last = time.monotonic()

    def report(share: float | None, tokens: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINE_S:
            return
        last = now
        line = f"{title}: {tokens:,} tokens, {tokens / (now - start):,.0f} tokens/s"
        if share:
            left_s = (now - start) * (1 / min(share, 1.0) - 1)
            line += f", {share:.0%}, {left_s / 60:.0f} min left"
        print(line, file=sys.stderr, flush=True)

    return report
