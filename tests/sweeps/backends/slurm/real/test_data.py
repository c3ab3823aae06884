"""A study from raw files to a report on a real Slurm: its data is prepared by jobs that are killed,
its runs wait for it, and more budgets later change nothing of what was done."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mor.data.manifest import read_manifest
from tests.sweeps.backends.slurm.real.client import queue, results, slurm, wait
from tests.sweeps.conftest import REPO

pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.slow]  # one cluster, one worker

FILES = 240
STUDY = [
    *("-m", "study=quick", "size=9k", "model=mor,vanilla", "train.val_tokens=1024"),
    *("train.warmup_steps=5", "data=fineweb_edu", "data.subset=edu", "data.tokenizer=train"),
    *("data.vocab_size=300", "data.window_tokens=65536", "data.shard_mb=1"),
    *("data.val_fraction=0.05", "runtime.checkpoint_s=0.5"),
]
SLURM = ["launch=slurm", "launch.slurm.data.cpus=1", "launch.slurm.data.mem_gb=2"]
FIRST, ALL = "budget=3e9", "budget=3e9,1.2e10"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a dataset's repository: a few hundred parquet files of made-up text."""
    folder = tmp_path_factory.mktemp("mirror")
    (folder / "edu").mkdir()
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9))) for _ in range(3000)]
    for i in range(FILES):
        texts = [" ".join(rng.choices(words, k=200)) for _ in range(40)]
        table = pa.table({"text": [*texts, None], "id": list(range(41))})
        pq.write_table(table, folder / "edu" / f"train-{i:05d}-of-{FILES:05d}.parquet")
    return folder


@pytest.fixture(scope="module")
def calm(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The results of the whole study, run here at once without any interruption."""
    folder = tmp_path_factory.mktemp("calm")
    command = [sys.executable, str(REPO / "sweep.py"), *STUDY, ALL, f"data.mirror={mirror}"]
    subprocess.run([*command, "launch=local"], cwd=folder, check=True, capture_output=True)
    return results(folder / "runs")


def numbers(found: dict[str, dict]) -> dict[str, object]:
    return {name: (r["loss"], r["tokens"], r["data"]) for name, r in found.items()}


def test_the_first_study(cluster, mirror: Path, calm: dict, sweep: Callable, tmp_path: Path):
    launch = [*STUDY, *SLURM, f"data.mirror={mirror}", "data.tokens=1e9"]  # all that there is

    def done() -> bool:
        return not queue("%i")

    assert sweep(*launch, FIRST).returncode == 0
    jobs = json.loads(next(tmp_path.glob("studies/quick/launches/*/jobs.json")).read_text())
    data, *training = jobs["arrays"]
    assert data["shape"]["gpus_per_node"] == 0
    assert data["shape"]["cpus_per_task"] == 1
    assert all(data["array_id"] in array["depends_on"] for array in training)

    def shards() -> int:
        folders = list(tmp_path.glob("data_cache/fineweb_edu-*"))
        return len(read_manifest(folders[0]).shards) if folders else 0

    wait(lambda: shards() > 3)
    slurm("scontrol", "requeue", data["array_id"])
    before = shards()
    status = next((tmp_path / "runs").glob("data-*/status.json"))
    wait(lambda: json.loads(status.read_text())["attempt"] == 2 and shards() > before + 3)
    os.kill(json.loads(status.read_text())["pid"], signal.SIGKILL)
    wait(done)
    assert not results(tmp_path / "runs")
    assert before < shards() < FILES

    assert sweep(*launch, FIRST).returncode == 0  # the same command goes on
    wait(lambda: list(tmp_path.glob("runs/mor-*/checkpoints/step-*/meta.json")), 240)
    for job in queue("%A"):
        slurm("scontrol", "requeue", job)
    wait(lambda: len(results(tmp_path / "runs")) == 2 and done(), 240)
    small = results(tmp_path / "runs")
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/result.json")}

    assert sweep(*launch, ALL).returncode == 0  # more budgets later
    wait(lambda: len(results(tmp_path / "runs")) == 4 and done(), 240)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert numbers(small).items() <= numbers(calm).items()
    assert numbers(results(tmp_path / "runs")) == numbers(calm)
    report = [sys.executable, "-m", "analysis", "report", "studies/quick"]
    ended = subprocess.run(
        report, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True
    )
    assert ended.returncode == 0, ended.stderr


def test_nodes_without_network(
    cluster, mirror: Path, calm: dict, sweep: Callable, refused: Callable, tmp_path: Path
):
    launch = [*STUDY, *SLURM, FIRST, "launch.slurm.data.network=false"]
    said = refused(*launch)
    assert "launch.slurm.data.network" in said
    assert "python -m mor prepare" in said
    assert not queue("%i")
    data = [word for word in STUDY if word.startswith("data")]
    prepare = [sys.executable, "-m", "mor", "prepare", *data, f"data.mirror={mirror}"]
    subprocess.run(
        [*prepare, "data.tokens=3e5"], cwd=tmp_path, check=True, env={**os.environ,
        "PYTHONPATH": str(REPO)}, capture_output=True,
    )  # fmt: skip
    assert sweep(*launch).returncode == 0  # the hub is not asked, nor is the copy needed
    wait(lambda: len(results(tmp_path / "runs")) == 2 and not queue("%i"), 240)
    assert numbers(results(tmp_path / "runs")).items() <= numbers(calm).items()
