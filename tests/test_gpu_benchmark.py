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
    small = "--batch 3 --mean-length 16 --rounds 2 --slice 8 --train-steps 2"
    found = measure_decoding("tiny", "cpu", *small.split())
    assert set(found) == {"vanilla", "mor2", "mor3", "mor4"}
    for name, row in found.items():
        assert row["tokens_per_s"] > 0
        if name != "vanilla":
            assert 1 <= row["mean_depth"] <= int(name[3:])
            assert row["of_bound"] > 0
            assert row["at_memory"]["batch"] >= 1
