"""Command lines as a user types them, in a folder of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
TOY = [
    "study=quick",
    "size=9k",
    "data.paths=[]",
    "train.warmup_budget=2e8",
    "train.val_tokens=1024",
    "train.seq_len=64",
]

Ended = subprocess.CompletedProcess[str]


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Ended]:
    """Run `python sweep.py ...` with its own run store; returns how it ended."""

    def run(*arguments: str, timeout: float = 240) -> Ended:
        command = [sys.executable, str(REPO / "sweep.py"), *arguments]
        for name in ("runs", "studies"):
            if not any(argument.startswith(f"{name}_dir=") for argument in arguments):
                command.append(f"{name}_dir={tmp_path / name}")
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture
def refused(sweep: Callable[..., Ended]) -> Callable[..., str]:
    """Run a command line that must be refused: exit code 2, one sentence, nothing trained."""

    def run(*arguments: str) -> str:
        ended = sweep(*arguments)
        assert ended.returncode == 2, ended.stderr + ended.stdout
        lines = ended.stderr.strip().splitlines()
        assert len(lines) == 1, ended.stderr
        assert lines[0].startswith("error: ")
        assert "Traceback" not in ended.stderr
        return lines[0].removeprefix("error: ")

    return run


@pytest.fixture
def toy() -> list[str]:
    """Overrides that make the quick study one of seconds: one size, budgets around 1e9."""
    return list(TOY)
