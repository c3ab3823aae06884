"""What a study has spent: its own attempts, and the steps in them."""

import json
from pathlib import Path

import pytest

from analysis.report.study import StudyFacts, study_facts
from ledger.attempts import WIDTH

HOUR = 3600.0


def attempted(store: Path, folder: str, *attempts: tuple[str, float, int]) -> None:
    """Attempts at tasks, in hours and threads."""
    lines = []
    for number, (task, hours, devices) in enumerate(attempts, 1):
        one = {
            "attempt": number,
            "task_id": task,
            "launch_id": "launch",
            "started": 1e6,
            "host": "n1",
            "pid": 1,
            "devices": devices,
            "ended": 1e6 + hours * HOUR,
            "cause": "finished",
        }
        lines.append(json.dumps(one).ljust(WIDTH - 1) + "\n")
    (store / folder).mkdir(parents=True, exist_ok=True)
    (store / folder / "attempts.jsonl").write_text("".join(lines))


def finished(store: Path, name: str, exact: float, speed: float | None) -> None:
    (store / name).mkdir(parents=True, exist_ok=True)
    result = {
        "schema": 1,
        "run_id": name,
        "status": "done",
        "model": "mor",
        "size": "9k",
        "budget": exact,
        "flops": {"exact": exact},
        "throughput": {"device": "cpu", "devices": 1, "flops_per_s": speed},
    }
    (store / name / "result.json").write_text(json.dumps(result))


def run(name: str, exact: float, own: float, *needs: str) -> dict:
    return {
        "run_id": name,
        "model": "mor",
        "size": "9k",
        "budget": exact,
        "seed": 0,
        "flops": {"exact": exact},
        "gpu_hours": 1.0,
        "own_exact_flops": own,
        "depends_on": list(needs),
    }


def segment(target: str, exact: float, *needs: str) -> dict:
    return {
        "segment_id": f"t@{target}",
        "trunk_id": "t",
        "target_flops": float(target),
        "steps": 1,
        "exact_flops": exact,
        "gpu_hours": 1.0,
        "status": "planned",
        "depends_on": list(needs),
    }


def facts(root: Path, name: str, runs: list[dict], segments: list[dict]) -> StudyFacts:
    folder = root / "studies" / name
    folder.mkdir(parents=True)
    plan = {"schema": 1, "study": name, "gpu": "cpu", "runs": runs, "segments": segments}
    (folder / "plan.json").write_text(json.dumps({**plan, "runs_dir": "runs"}))
    return study_facts(folder, {})


def test_runs_whose_speeds_scatter_count_by_their_own_seconds(tmp_path):
    store = tmp_path / "runs"
    speeds = {"a": 1e9, "b": 4e9, "c": 16e9, "d": None}
    for name, speed in speeds.items():
        finished(store, name, 36e12, speed)
    spent = facts(tmp_path, "one", [run(name, 36e12, 36e12) for name in speeds], []).spent
    seconds = 36e12 * (1 / 1e9 + 1 / 4e9 + 1 / 16e9)
    # d goes at what the three made together: their FLOPs over their seconds.
    assert spent[0].spent_hours == pytest.approx(seconds * 4 / 3 / HOUR)


def test_steps_take_no_longer_than_their_attempts(tmp_path):
    store = tmp_path / "runs"
    finished(store, "slow", 8e12, 1e9)
    attempted(store, "slow", ("slow", 2 * 1e3 / HOUR, 2))
    attempted(store, "t", ("t@6e12", 0.5, 1))
    told = facts(tmp_path, "one", [run("slow", 8e12, 2e12, "t@6e12")], [segment("6e12", 6e12)])
    # By the speed of the cool-down the trunk would have taken 6,000 s on two threads.
    assert told.spent[0].spent_hours == pytest.approx(0.5 + 2 * 2e12 / 1e9 * 2 / HOUR / 2)
    assert told.spent[0].spent_hours <= told.held["core-hours"]


def test_each_study_counts_its_own_attempts_at_a_shared_trunk(tmp_path):
    store = tmp_path / "runs"
    names = ("x", "y")
    for name in names:
        finished(store, name, 10e12, 1e9)
        attempted(store, name, (name, 1.0, 1))
    attempted(store, "t", ("t@4e12", 2.0, 1), ("t@8e12", 0.25, 1), ("t@4e12", 0.5, 1))
    first = facts(tmp_path, "one", [run("x", 10e12, 2e12, "t@4e12")], [segment("4e12", 4e12)])
    second = facts(tmp_path, "two", [run("y", 10e12, 2e12, "t@8e12")], [segment("8e12", 8e12)])
    assert first.held == {"core-hours": pytest.approx(1.0 + 2.0 + 0.5)}
    assert second.held == {"core-hours": pytest.approx(1.0 + 0.25)}
    # The second went on from where the first had trained the trunk to.
    assert second.spent[0].spent_hours == pytest.approx(2e3 / HOUR + 0.25)


def test_segments_that_overlap_are_trained_once(tmp_path):
    store = tmp_path / "runs"
    for name in ("x", "y"):
        finished(store, name, 10e12, 1e9)
    told = facts(
        tmp_path,
        "grown",
        [run("x", 10e12, 2e12, "t@4e12"), run("y", 10e12, 2e12, "t@8e12")],
        [segment("2e12", 2e12), segment("4e12", 2e12, "t@2e12"), segment("8e12", 8e12)],
    )
    assert told.spent[0].spent_flops == pytest.approx(8e12 + 2 * 2e12)
