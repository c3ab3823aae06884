"""What of benchmarks/gpu.py runs without a GPU: the table, and decoding."""

from __future__ import annotations

from benchmarks.gpu import compare, measure_decoding, table


def test_ratios_are_to_the_vanilla_model_of_the_same_size() -> None:
    rows = {
        "vanilla:360m": {"step_s": 2.0, "exact_tflops": 10.0, "peak_gib": 4.0, "mfu": 0.4},
        "mor3:360m": {"step_s": 1.5, "exact_tflops": 7.0, "peak_gib": 3.0},
        "train:360m": {"loss": {"val_nll_causal": 3.5}},
        "mor3:1.7b": {"error": "ran out of memory"},
    }
    compare(rows)
    row = rows["mor3:360m"]
    assert (row["time_ratio"], row["flop_ratio"], row["memory_ratio"]) == (0.75, 0.7, 0.75)
    lines = table(rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| vanilla:360m", "| mor3:360m"]
    assert {line.count("|") for line in lines[:4]} == {lines[0].count("|")}
    assert [line for line in lines if "ran out of memory" in line]


def test_decoding_is_measured_for_each_model() -> None:
    found = measure_decoding("toy", "cpu", new=3)
    assert found["vanilla"]["mean_depth"] == 1
    assert 1 <= found["mor3"]["mean_depth"] <= 3
    assert set(found) == {"vanilla", "vanilla, no graphs", "mor3", "mor3, no graphs"}
    assert all(row["tokens_per_s"] > 0 for row in found.values())
