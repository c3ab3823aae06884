"""Seconds to plan 1,008 runs, after start-up: a plan of 1,008 less a plan of one.

python benchmarks/plan.py [--json]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).parents[1]
REPEATS = 5
SEEDS = ",".join(str(seed) for seed in range(28))


def seconds(folder: str, *overrides: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, str(REPO / "sweep.py"), "-m", "study=paper", "launch=plan"),
            *(f"launch.plan_file={folder}/plan.json", f"runs_dir={folder}/runs", *overrides),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
    )
    return time.perf_counter() - began


def main() -> None:
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(REPEATS):
            one = seconds(folder, "model=mor", "size=360m", "budget=5e18")
            pairs.append((one, seconds(folder, f"seed={SEEDS}")))
    report = {
        "one_run_s": round(statistics.median(one for one, _ in pairs), 2),
        "runs_1008_s": round(statistics.median(many for _, many in pairs), 2),
        "runs_1008_after_start_s": round(statistics.median(b - a for a, b in pairs), 2),
    }
    if "--json" in sys.argv:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
