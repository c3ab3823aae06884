"""An interrupt ends a command with 130 and without a traceback, wherever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interrupts import heard

REPO = Path(__file__).parents[2]
SWALLOWED = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
except BaseException:
    pass
raise SystemExit(7)
"""
FINALISED = """
import os, signal, sys, time
from ledger import interrupts
interrupts.watch()
class Closed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
try:
    Closed()
    time.sleep(20)
except KeyboardInterrupt:
    sys.exit(interrupts.CODE)
"""


def run(
    folder: Path, *arguments: str, preexec_fn: Callable[[], None] = heard
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), str(REPO)])
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=60, preexec_fn=preexec_fn,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("imported", "arguments"),
    [
        ("typer", ["-m", "mor"]),
        ("typer", ["-m", "sweeps"]),
        ("typer", ["-m", "analysis"]),
        ("hydra", [str(REPO / "sweep.py")]),
        ("torch", ["-m", "mor", "export", "run", "out"]),
        ("torch", ["-m", "mor", "evaluate", "run", "--tasks", "corpus"]),
    ],
)
def test_an_import_that_drops_interrupts_ends_at_once(
    imported: str, arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / f"{imported}.py").write_text(SWALLOWED)
    ended = run(tmp_path, *arguments)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_an_interrupt_in_a_finaliser_is_raised_after_it(tmp_path: Path) -> None:
    ended = run(tmp_path, "-c", FINALISED)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_what_ignores_interrupts_goes_on_ignoring_them(tmp_path: Path) -> None:
    code = "import signal; from ledger import interrupts; interrupts.watch(); import typer"
    (tmp_path / "typer.py").write_text(SWALLOWED)

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    assert run(tmp_path, "-c", code, preexec_fn=ignore).returncode == 7
