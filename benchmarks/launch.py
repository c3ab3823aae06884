"""Seconds to submit a thousand runs to Slurm, to ask what they do, and per packed short run.

python benchmarks/launch.py [--json] [--noops 40]

Starts slurm/dev_cluster in a folder of its own (root; see there) and stops it. A packed run goes
through claim, status, attempts, log and result, but trains nothing: the snapshot's `train_run` is
replaced before the one job starts that has them all. Its rivals do nothing at all, eight at a time:
submitit's own array, and sbatch --array of `true`. `cpu_s` is the processor time of the command,
which a busy machine changes less than `s`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPO = Path(__file__).parents[1]
PARALLEL = 8
QUICK = ["-m", "study=quick", "cluster=dev", "launch=slurm"]
HELD = "+launch.slurm.sbatch.hold=true"
NOOP = """

def train_run(config, folder, start, hooks):
    folder.checkpoints.rmdir()  # a result alone is whole
    folder.write_result(Result(status="done"))
"""
SHORT = ["size=9k", "model=vanilla", "budget=3e8", "train.branch=false"]
SHORT += ["train.val_tokens=1024", "train.warmup_budget=2e8"]


def seconds(command: list[str]) -> dict[str, float]:
    """Wall and processor seconds of a command line."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"s": wall, "cpu_s": cpu}


def sweep(*arguments: str) -> dict[str, float]:
    return seconds([sys.executable, str(REPO / "sweep.py"), *QUICK, *arguments])


def until_idle(submit: Callable[[], object]) -> float:
    """Seconds from the start of a submission until the queue is empty."""
    began = time.perf_counter()
    submit()
    while subprocess.check_output(["squeue", "-h"]).strip():
        time.sleep(0.2)
    return time.perf_counter() - began


def thousand() -> dict[str, float]:
    """1,035 runs on 345 trunks, one task to a job, held so that none starts; then their status."""
    submit = sweep("launch.slurm.pack_min=0", "seed=range(23)", HELD)
    jobs = len(subprocess.check_output(["squeue", "-h", "-r"]).splitlines())
    status = seconds([sys.executable, "-m", "sweeps", "status", "quick"])
    subprocess.run(["scancel", "--me"], check=True)
    named = {f"submit_1035_runs_{name}": value for name, value in submit.items()}
    return {**named, "jobs": jobs, **{f"status_1035_runs_{n}": v for n, v in status.items()}}


def noops(count: int) -> dict[str, float]:
    """Seconds per run or no-op, submission and start of the jobs included."""
    import submitit

    def submitit_array() -> None:
        executor = submitit.SlurmExecutor("submitit")
        executor.update_parameters(time=10, mem="500M", array_parallelism=PARALLEL)
        executor.map_array(abs, range(count))

    def packed() -> None:
        sweep("study.name=short", *SHORT, f"seed=range({count})", HELD)
        [code] = Path("studies/short/launches").glob("*/code")
        with (code / "mor" / "train" / "run.py").open("a") as file:
            file.write(NOOP)
        [job] = set(subprocess.check_output(["squeue", "-h", "-o", "%F"], text=True).split())
        subprocess.run(["scontrol", "release", job], check=True)

    array = f"--array=0-{count - 1}%{PARALLEL}"
    plain = ["sbatch", array, "--mem=500M", "--output=/dev/null", "--wrap=true"]
    ours = until_idle(packed)
    done = len(list(Path("runs").glob("*/result.json")))
    assert done == count, f"{done} of {count} runs are done"
    found = {
        "packed_noop_s": ours / count,
        "submitit_array_noop_s": until_idle(submitit_array) / count,
        "sbatch_array_noop_s": until_idle(lambda: subprocess.run(plain, check=True)) / count,
    }
    return {
        **found,
        "packed_over_submitit": found["packed_noop_s"] / found["submitit_array_noop_s"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--noops", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(REPO)
        os.environ["SLURM_CONF"] = f"{folder}/cluster/slurm.conf"
        cluster = [str(REPO / "slurm" / "dev_cluster"), "--folder", f"{folder}/cluster"]
        subprocess.run([*cluster, "start"], check=True, stdout=subprocess.DEVNULL)
        try:
            report = {**thousand(), **noops(arguments.noops)}
        finally:
            subprocess.run([*cluster, "stop"], check=True)
    report = {name: round(value, 3) for name, value in report.items()}
    if arguments.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
