"""Without what the harness and the libraries below it say of each step."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator

LOUD = ("datasets", "huggingface_hub", "lm_eval")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Their logs are left out, and their progress bars where the output is not a terminal."""
    loggers = [logging.getLogger(name) for name in LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    bars = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with contextlib.redirect_stderr(bars):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
