"""The same work for many curves, spread over this machine's processors.

Each item is worked on alone and the results keep their order, so what comes out does not depend on
how many processors there are. Workers are copies of this process (fork): nothing is imported again
and tables are not sent. Where a system cannot do that safely (macOS, Windows), in a process that is
a worker already, and where the memory is gone, the work is done here, one item after
another.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")

LEAST = 4  # items: below, the workers' start takes what they save

_work: Callable[[Any], Any] | None = None  # what the workers of this moment inherit
_items: Sequence[Any] = ()


def spread(work: Callable[[Item], Found], items: Sequence[Item], least: int = LEAST) -> list[Found]:
    """`work` of each item, in their order; results must be picklable.

    Raises what `work` raises, of the first item that does.
    """
    global _work, _items
    many = min(processors(), len(items))
    if sys.platform != "linux" or many < 2 or len(items) < least or parent_process() is not None:
        return [work(item) for item in items]
    _work, _items = work, items
    try:
        with ProcessPoolExecutor(many, get_context("fork"), _deaf) as pool:
            return list(pool.map(_one, range(len(items))))
    except BrokenProcessPool:
        return [work(item) for item in items]
    finally:
        _work, _items = None, ()


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _deaf() -> None:
    """Ctrl-C goes to all processes of a terminal: the first one ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _one(number: int) -> Any:
    assert _work is not None
    return _work(_items[number])
