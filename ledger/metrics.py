"""`metrics.jsonl` of a run or trunk: a line for each logged step, one for each validation.

A line ends in the CRC-32 of the rest of it, so that a flipped bit costs that line and is no other
loss. Lines of an older version have none and are read as they are.
"""

from __future__ import annotations

import json
import logging
import math
import re
import zlib
from pathlib import Path
from typing import Any

from ledger.damage import set_aside
from ledger.files import write_atomically
from ledger.result import LOSS_KEYS

log = logging.getLogger(__name__)

VALIDATION = LOSS_KEYS["causal"]  # in a line: it is a validation on the way
CRC = "crc32"
_SEALED = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}')


def sealed_line(values: dict[str, Any]) -> str:
    """The line of `values`, with its CRC as the last of them."""
    crc = zlib.crc32(json.dumps(values).encode())
    return json.dumps({**values, CRC: f"{crc:08x}"}) + "\n"


def read_line(line: bytes) -> dict[str, Any] | None:
    """The values of a line, without its CRC; None: it is damaged."""
    sealed = _SEALED.fullmatch(line)
    text = sealed[1] + b"}" if sealed else line
    if sealed and f"{zlib.crc32(text):08x}".encode() != sealed[2]:
        return None
    try:
        values = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(values, dict) and type(values.get("step")) is int and CRC not in values
    return values if whole else None


def lines_of(data: bytes) -> list[bytes]:
    """The lines that have ended. One without its end is still written, or torn by a crash."""
    return data.split(b"\n")[:-1]


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines that are whole, and the number of those that are damaged."""
    try:
        lines = lines_of(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return [], 0
    read = [values for line in lines if (values := read_line(line)) is not None]
    return read, len(lines) - len(read)


class MetricsWriter:
    """Writes each step once, however often a run restarts.

    A line torn by a crash is cut off when the file is opened again, and a step that was logged
    before the crash and is trained again (to the same bits) is not logged twice. Where a line
    before the last is damaged, the file is set aside and goes on with the lines that are whole.
    """

    def __init__(self, path: Path) -> None:
        self.last, self.validated = self._repair(path)  # steps of the newest line of each kind
        self._file = path.open("a")

    @staticmethod
    def _repair(path: Path) -> tuple[int, int]:
        """Keep the lines that are whole and whose steps rise, for each kind of line."""
        if not path.exists():
            return -1, -1
        data = path.read_bytes()
        lines = lines_of(data)
        read = [read_line(line) for line in lines]
        whole, newest = [], {False: -1, True: -1}
        for kind in newest:
            steps = {
                i: values["step"]
                for i, values in enumerate(read)
                if values is not None and (VALIDATION in values) is kind
            }
            rising = _rising(steps)
            whole += rising
            newest[kind] = max((steps[i] for i in rising), default=-1)
        kept = [lines[i] for i in sorted(whole)]
        if len(kept) == len(lines):
            if not data.endswith(b"\n"):
                with path.open("r+b") as file:
                    file.truncate(data.rfind(b"\n") + 1)
        else:
            log.warning("%s: %d lines are damaged", path.name, len(lines) - len(kept))
            set_aside(path)
            write_atomically(path, b"".join(line + b"\n" for line in kept).decode())
        return newest[False], newest[True]

    def write(self, step: int, **values: Any) -> None:
        if step > self.last:
            self._append(step, values)
            self.last = step

    def write_validation(self, step: int, **values: Any) -> None:
        """`values` hold `VALIDATION`; the line of the step itself, if any, was written before."""
        if step > self.validated:
            self._append(step, values)
            self.validated = step

    def _append(self, step: int, values: dict[str, Any]) -> None:
        self._file.write(sealed_line({"step": step, **values}))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _rising(steps: dict[int, int]) -> list[int]:
    """The lines (number to step) without those that a damaged number has put out of order."""
    kept: list[int] = []
    before = -1
    for line, after in zip(steps, [*steps.values(), math.inf][1:], strict=True):
        step = steps[line]
        out_of_order = before < after <= step
        if before < step and not out_of_order:
            kept.append(line)
            before = step
    return kept
