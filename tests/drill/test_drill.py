"""The short form of the drill: every kind of fault once or twice, survived."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_kind_of_fault_is_survived(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "tests.drill", "--short", "--folder", str(tmp_path)],
        cwd=REPO,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = re.search(r"^all +(\d+) / +(\d+)", ended.stdout, re.MULTILINE)
    assert found, ended.stdout
    survived, injected = map(int, found.groups())
    assert survived == injected
    assert injected > 40
