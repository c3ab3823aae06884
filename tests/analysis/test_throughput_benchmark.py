"""The benchmark of throughput runs and says what it promises, on a tiny scale."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_throughput_benchmark_prints_speedups_and_bounds(tmp_path):
    scale = ("--size", "tiny", "--train-steps", "1", "--batch", "2", "--mean-length", "8")
    turns = ("--rounds", "1", "--slice", "8", "--pairs", "0")
    done = subprocess.run(
        [sys.executable, "benchmarks/throughput.py", "--json", "--cache", tmp_path, *scale, *turns],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    report = json.loads(done.stdout)
    assert len(list(tmp_path.glob("*.npz"))) == 4
    for n in (2, 3, 4):
        one = report[f"mor{n}"]
        assert one["speedup"] > 0
        layers, shared = 14, 12 / n  # F0 is 2 layers and the head; attention adds a little to both
        linear = layers / (2 + shared * one["mean_depth"])
        assert one["bound"] == pytest.approx(linear, rel=0.15)
        assert 1 <= one["mean_depth"] <= n
        assert sum(one["time"].values()) == pytest.approx(1, abs=0.01)
        assert one["at_memory"]["peak_kv_mib"] <= report["setting"]["kv_mib"] + 0.1
    assert "left_out" in report["vs_transformers"]
    assert len(report["points"]) == 8
