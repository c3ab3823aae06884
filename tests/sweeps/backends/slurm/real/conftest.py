"""One real Slurm for all tests below this folder; they are skipped where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sweeps.backends.slurm.real.case import RUN, SLURM, Case
from tests.sweeps.backends.slurm.real.client import slurm, wait
from tests.sweeps.conftest import REPO

MAX_ARRAY_SIZE = 6  # so small that ordinary tests meet the split of arrays


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Slurm of this machine's own, for the whole session; SLURM_CONF is set."""
    if shutil.which("slurmctld") is None or os.geteuid() != 0:
        pytest.skip(
            "no Slurm here: as root, apt-get install -y --no-install-recommends "
            "slurm-wlm slurmdbd munge mariadb-server"
        )
    folder = tmp_path_factory.mktemp("slurm") / "cluster"
    command = [str(REPO / "slurm" / "dev_cluster"), "--folder", str(folder)]
    started = subprocess.run(
        [*command, "--max-array-size", str(MAX_ARRAY_SIZE), "start"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield folder
    subprocess.run([*command, "stop"], check=True, timeout=60)
    del os.environ["SLURM_CONF"]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run, trained here without any interruption."""
    folder = tmp_path_factory.mktemp("whole")
    command = [sys.executable, str(REPO / "sweep.py"), *RUN, "launch=local"]
    folders = [f"runs_dir={folder / 'runs'}", f"studies_dir={folder / 'studies'}"]
    subprocess.run([*command, *folders], cwd=folder, check=True, capture_output=True, timeout=300)
    [run] = (folder / "runs").iterdir()
    return run


@pytest.fixture
def submitted(cluster, whole, sweep, tmp_path) -> Iterator[Callable[..., Case]]:
    """Submit the run and wait for its first checkpoint."""

    def submit(*settings: str) -> Case:
        case = Case(tmp_path, whole)
        ended = sweep(*RUN, *SLURM, *settings)
        assert ended.returncode == 0, ended.stderr
        wait(case.checkpoints)
        return case

    yield submit
    subprocess.run(["scancel", "--me"], check=True, timeout=30)
    wait(lambda: not slurm("squeue", "-h"), 60)
