"""docs/tutorial.md, every block of it, as a reader types them in a folder that `init` wrote."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mor.starter import write_starter
from tests.conftest import REPO

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def blocks() -> list[str]:
    """The shell blocks in their order."""
    return BLOCK.findall((REPO / "docs" / "tutorial.md").read_text())


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    own, programs = tmp_path / "mine", tmp_path / "bin"
    write_starter(own)
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPO),
        "OMP_NUM_THREADS": "1",
    }
    assert len(blocks()) >= 8
    for block in blocks():
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=own, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, f"{block}\n{ended.stdout[-3000:]}\n{ended.stderr[-2000:]}"
        assert "Traceback" not in ended.stderr
    results = [json.loads(path.read_text()) for path in own.glob("runs/*/result.json")]
    assert {one["status"] for one in results} == {"done"}
    sizes = {one["size"] for one in results if one["model"] == "mor"}
    assert sizes == {"9k", "16k", "24k", "32k", "57k", "123k"}
    assert (own / "studies" / "first" / "report.html").is_file()
    (forecast,) = (own / "studies" / "first" / "forecasts").glob("*.json")
    assert json.loads(forecast.read_text())["predictions"]
    assert list((own / "looked-at").glob("*.html"))
    assert (own / "exported" / "config.json").is_file()
    assert list((own / "figures").glob("**/*.png"))


def test_every_block_is_read() -> None:
    text = (REPO / "docs" / "tutorial.md").read_text()
    assert text.count("```sh") == len(blocks())
