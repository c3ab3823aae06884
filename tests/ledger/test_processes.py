"""A process is known by its number and the time it began, from /proc and from ps alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import psutil
import pytest

from ledger import processes


def test_the_start_time_is_the_systems():
    expected = psutil.Process().create_time()
    assert processes.start_time(os.getpid()) == pytest.approx(expected, abs=0.1)


def test_ps_says_the_same():
    if shutil.which("ps") is None:
        pytest.skip("no ps on this machine")
    expected = psutil.Process().create_time()
    assert processes._from_ps(os.getpid()) == pytest.approx(expected, abs=2.0)


def test_a_zombie_and_nobody_have_none():
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert ended.stdout is not None
    ended.stdout.read()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # leaves it a zombie
    assert processes.start_time(ended.pid) is None
    ended.wait()
    assert processes.start_time(ended.pid) is None
