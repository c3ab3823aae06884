"""An interrupt (Ctrl-C, SIGINT) ends a command at any moment, with exit code 130 and no traceback.

Python raises KeyboardInterrupt wherever it is. Where that is in an import, a callback of the import
system or a library may drop it, or its traceback is printed before any command has begun; where it
is in a finaliser, it is printed and dropped.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

CODE = 130
AGAIN_S = 0.05  # after this, a dropped interrupt is sent once more
IMPORTING = "<frozen importlib"  # file of the import system's frames


def watch() -> None:
    """From here on, unless interrupts are ignored or answered otherwise already. An import that is
    interrupted ends the process at once; elsewhere KeyboardInterrupt is raised as ever."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
        sys.unraisablehook = _send_again


def _interrupted(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            _end()
        frame = frame.f_back
    raise KeyboardInterrupt


def _end() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, RuntimeError, ValueError):
            continue  # closed, or in the middle of a write
    os._exit(CODE)


def _send_again(dropped: Any) -> None:
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    main = threading.main_thread().ident
    assert main is not None
    again = threading.Timer(AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
    again.daemon = True
    again.start()
