"""The quick study from nothing, as `make demo` runs it: seconds, and tokens per second trained.

    python benchmarks/demo.py [--json] [--folder NEW]

Trains in a new folder (a temporary one by default), so that a finished study does not make it look
fast.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", help="a new folder for runs and figures, which is kept")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or stack.enter_context(tempfile.TemporaryDirectory())
        Path(folder).mkdir(parents=True, exist_ok=arguments.folder is None)
        began = time.perf_counter()
        study = ("study=quick", "study.evaluate=corpus", f"data.cache_dir={folder}/cache")
        _run(folder, "sweep.py", "-m", *study)
        trained = time.perf_counter()
        _run(folder, "-m", "analysis", "report", "studies/quick")
        drawn = time.perf_counter()
        results = [json.loads(p.read_text()) for p in Path(folder).glob("runs/*/result.json")]
        status = [json.loads(p.read_text()) for p in Path(folder).glob("runs/*/status.json")]
    tokens = sum(s["tokens"] for s in status if "trunk" in s["task_id"]) + sum(
        r["tokens"] * 0.2 for r in results
    )
    speeds = sorted(r["throughput"]["tokens_per_s"] for r in results)
    report = {
        "runs": len(results),
        "train_s": round(trained - began, 1),
        "figures_s": round(drawn - trained, 1),
        "total_s": round(drawn - began, 1),
        "tokens_trained": round(tokens),
        "tokens_per_s_all_workers": round(tokens / (trained - began)),
        "tokens_per_s_of_a_run": {"slowest": round(speeds[0]), "fastest": round(speeds[-1])},
        "cores": len(os.sched_getaffinity(0)),
    }
    if arguments.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:28} {value}")


def _run(folder: str, *arguments: str) -> None:
    command = [sys.executable, *arguments]
    if arguments[0] == "sweep.py":
        command[1] = str(REPO / "sweep.py")
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
