"""Speeds measured before a study: where they stand, and what a plan makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.attempts import AttemptLog
from ledger.result import Result, Throughput
from ledger.speeds import FOLDER, Speed, read_speed, speed_file, speeds, write_speed
from ledger.store import Ledger
from mor.flops import run_cost
from mor.speed_settings import speed_settings
from mor.train.measure import measure
from sweeps.measuring import as_rows
from sweeps.prices import measured_flops_per_s
from tests.mor.train.test_variants import MODELS
from tests.sweeps.store import Store


@pytest.mark.parametrize("name", ["vanilla", "recursive", "mor", "mor_token", *MODELS])
def test_a_measurement_counts_the_flops_of_its_steps(toy_run, name: str) -> None:
    config = (
        toy_run(name) if name not in MODELS else replace(toy_run("vanilla"), model=MODELS[name])
    )
    found = measure(config, 0.01)
    train = config.train
    assert found.steps >= 2
    assert (found.model, found.size) == (config.model.name, config.size.name)
    assert (found.device, found.devices, found.micro_batch) == ("cpu", 1, train.batch_size)
    tokens = found.steps * train.batch_size * train.seq_len
    assert found.tokens_per_s == pytest.approx(tokens / found.seconds)
    planned = found.steps * run_cost(config).step_flops["exact"]
    spread = 0.5 if config.model.name == "looped" else 0.05  # depths and loads are drawn
    assert found.flops_per_s * found.seconds == pytest.approx(planned, rel=spread)
    assert found.mfu > 0
    assert found.peak_memory_gb > 0.05


def test_the_time_that_was_asked_for_is_a_least(toy_run) -> None:
    assert measure(toy_run("vanilla"), 0.2).seconds >= 0.2


def test_a_cpu_counts_its_threads(toy_run) -> None:
    config = toy_run("vanilla")
    two = replace(config, runtime=replace(config.runtime, threads=2))
    found = [measure(one, 0.01) for one in (config, two)]
    assert [(one.devices, one.threads) for one in found] == [(1, 1), (2, 2)]


def test_what_decides_the_speed_tells_files_apart(toy_run, tmp_path: Path) -> None:
    config = toy_run("mor")
    same = replace(config, budget=2 * config.budget, seed=7)
    other = replace(config, train=replace(config.train, batch_size=2))
    threads = replace(config, runtime=replace(config.runtime, threads=3))
    files = [
        speed_file(tmp_path, "m", "s", speed_settings(c)) for c in (config, same, other, threads)
    ]
    assert files[0] == files[1]
    assert len(set(files)) == 3


def speed(**changes) -> Speed:
    values = {"model": "mor", "size": "tiny", "device": "cpu", "flops_per_s": 2e9,
              "measured": "2026-11-27T01:00:00+00:00"}  # fmt: skip
    return Speed(**{**values, **changes})


def test_prices_take_the_newest_of_the_device_and_finished_runs_first(tmp_path: Path) -> None:
    for i, one in enumerate(
        [
            speed(flops_per_s=1e9, measured="2026-11-26T01:00:00+00:00"),
            speed(flops_per_s=4e9, devices=2),
            speed(device="NVIDIA H100 80GB HBM3", flops_per_s=9e14),
        ]
    ):
        write_speed(tmp_path / FOLDER / f"{i}.json", one)
    ledger = Ledger(tmp_path)
    assert measured_flops_per_s(ledger, "cpu") == {("mor", "tiny"): 2e9}
    assert measured_flops_per_s(ledger, "h100") == {("mor", "tiny"): 9e14}
    ledger.folder("mor-tiny-1-0").path.mkdir()
    ledger.folder("mor-tiny-1-0").write_result(
        Result(
            run_id="mor-tiny-1-0",
            status="done",
            model="mor",
            size="tiny",
            throughput=Throughput(device="cpu", flops_per_s=5e9),
        )
    )
    assert measured_flops_per_s(ledger, "cpu") == {("mor", "tiny"): 5e9}
    assert ledger.present() == {"mor-tiny-1-0"}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.booleans(), st.floats(1e6, 1e12))
def test_a_price_is_that_of_one_thread_however_a_run_was_trained(
    threads: int, processes: int, old: bool, each: float
) -> None:
    """Older speeds count processes; the attempts, or the settings measured, have the threads."""
    count = threads * processes
    kept = {"devices": processes} if old else {"devices": count, "threads": threads}
    made = {"runtime": {"threads": threads}}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), [1e8])
        [run] = store.plan.runs
        before = speed(model="vanilla", flops_per_s=count * each, settings=made, **kept)
        write_speed(store.ledger.runs_dir / FOLDER / "a.json", before)
        key = ("vanilla", "tiny")
        assert measured_flops_per_s(store.ledger, "cpu")[key] == pytest.approx(each)
        log = AttemptLog(store.ledger.folder(run.run_id).path)
        log.path.parent.mkdir()
        log.begin(f"{run.trunk_id}@1", "launch", 99, False)
        log.begin(run.run_id, "launch", count, False)
        throughput = Throughput(device="cpu", flops_per_s=2 * count * each, **kept)
        store.ledger.folder(run.run_id).write_result(
            Result(run_id=run.run_id, status="done", model="vanilla", size="tiny",
                   throughput=throughput)
        )  # fmt: skip
        assert measured_flops_per_s(store.ledger, "cpu")[key] == pytest.approx(2 * each)


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 9}', "{"])
def test_a_file_that_cannot_be_read_is_no_speed(tmp_path: Path, content: str) -> None:
    path = tmp_path / FOLDER / "a.json"
    path.parent.mkdir()
    path.write_text(content)
    assert read_speed(path) is None
    assert speeds(tmp_path) == []


def test_a_table_says_all_of_it() -> None:
    (row,) = as_rows([speed(devices=2, mfu=0.41, peak_memory_gb=61.5, micro_batch=8, steps=3)])
    assert row[2:7] == ("2 x cpu", "0", "41.0 %", "61.50 GB", "8")


VAL_TOKENS = 1024
TWO = ("-m", "study=quick", "size=9k", "budget=3e8", f"train.val_tokens={VAL_TOKENS}",
       "train.warmup_budget=2e8", "launch.calibrate_s=0.05")  # fmt: skip


def plan_of(folder: Path) -> dict:
    return json.loads((folder / "plan.json").read_text())


def test_a_plan_is_priced_at_what_was_measured_here(sweep, tmp_path: Path) -> None:
    ended = sweep(
        *TWO,
        "model=vanilla,mor",
        "launch=plan",
        "launch.calibrate=true",
        "launch.plan_file=plan.json",
    )
    assert ended.returncode == 0, ended.stderr
    found = {one.model: one for one in speeds(tmp_path / "runs")}
    assert found.keys() == {"vanilla", "mor"}
    runs = {run["model"]: run for run in plan_of(tmp_path)["runs"]}
    for name, run in runs.items():
        assert run["price"] == "measured"
        passes = {"vanilla": 1, "mor": 4}[name]  # of the validation at the end
        checks = passes * VAL_TOKENS / run["tokens"] / 3
        seconds = run["flops"]["exact"] * (1 + checks) / found[name].flops_per_s
        assert run["gpu_hours"] == pytest.approx(seconds / 3600, rel=1e-6)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / FOLDER).iterdir()}
    again = sweep(*TWO, "model=vanilla,mor", "launch=plan", "launch.calibrate=true")
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_launch_that_calibrates_trains_the_same_runs(sweep, tmp_path: Path) -> None:
    ended = sweep(*TWO, "model=vanilla", "launch.calibrate=true")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    plain = sweep(*TWO, "model=vanilla", f"runs_dir={tmp_path / 'other'}")
    assert plain.returncode == 0
    (one,), (two,) = (list((tmp_path / d).glob("*/result.json")) for d in ("runs", "other"))
    assert one.parent.name == two.parent.name
    losses = [json.loads(file.read_text())["loss"] for file in (one, two)]
    assert losses[0] == losses[1]


def test_what_cannot_be_measured_is_said_and_priced_as_before(sweep, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / FOLDER).write_text("in the way")
    ended = sweep(*TWO, "model=vanilla", "launch=plan", "launch.calibrate=true",
                  "launch.plan_file=plan.json")  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "vanilla 9k: not measured" in ended.stdout
    assert "has the speed" not in ended.stdout
    assert "tokens/s" not in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    assert {run["price"] for run in plan_of(tmp_path)["runs"]} == {"assumed"}


def test_benchmark_measures_a_study_that_was_launched(sweep, tmp_path: Path) -> None:
    assert sweep(*TWO, "model=vanilla").returncode == 0

    def benchmark(*more: str):
        return subprocess.run(
            [sys.executable, "-m", "sweeps", "benchmark", "quick", "--json", *more],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    known = benchmark()
    assert json.loads(known.stdout) == {"speeds": []}  # finished runs tell it
    assert "benchmark quick --again" in known.stderr
    planned = sweep(*TWO, "model=vanilla", "launch=plan", "launch.calibrate=true")
    assert "benchmark quick --again" in planned.stdout
    assert "tokens/s" not in planned.stdout
    found = json.loads(benchmark("--again", "--seconds", "0.05").stdout)["speeds"]
    assert [(one["model"], one["size"]) for one in found] == [("vanilla", "9k")]
    wrong = benchmark("--seconds", "0")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
