"""A pretended Slurm: client commands that answer from files and keep what was submitted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SINFO = "main*|up|1-00:00:00|96|1900000|gpu:h100:8(S:0-1)|4\ncpu|up|2:00:00|64|500000|(null)|2\n"
SETTINGS = "MaxArraySize = 1001\nAccountingStorageType = accounting_storage/slurmdbd\n"

SCRIPTS = {
    "sinfo": "cat {folder}/sinfo.txt",
    "scontrol": "cat {folder}/settings",
    "squeue": "true",
    "srun": "true",
    "sbatch": """[ "$1" = --test-only ] && exit 0
n=$(ls {folder}/submitted | wc -l); cp "$1" {folder}/submitted/$n
echo Submitted batch job $((100 + n))""",
}


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put a Slurm on the PATH that has the partitions and settings given; returns the folder in
    which submitted scripts are kept, by their number."""

    def make(sinfo: str = SINFO, settings: str = SETTINGS) -> Path:
        folder = tmp_path / "slurm"
        (folder / "submitted").mkdir(parents=True)
        (folder / "sinfo.txt").write_text(sinfo)
        (folder / "settings").write_text(settings)
        for name, body in SCRIPTS.items():
            (folder / name).write_text("#!/bin/bash\n" + body.format(folder=folder) + "\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return folder / "submitted"

    return make
