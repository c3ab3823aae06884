"""For processes that a test interrupts."""

from __future__ import annotations

import signal


def heard() -> None:
    """To run in the process before it begins: a shell's background job has Ctrl-C ignored, and
    hands that on to what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
