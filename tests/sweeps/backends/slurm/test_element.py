"""How an array element ends, where Slurm itself is not needed to tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ledger.plan_file import write_plan
from ledger.store import Ledger
from sweeps.backends.slurm import element
from sweeps.config import ClusterConfig
from sweeps.plan import build_plan


@pytest.fixture
def start(toy_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start a job of one run whose worker is stopped after it has spent so many FLOPs in all;
    returns how often it has been requeued."""
    ledger = Ledger(tmp_path / "runs")
    plan = build_plan("s", [toy_run("vanilla")], ledger, ClusterConfig())
    write_plan(tmp_path / "plan.json", plan.for_workers())
    tasks = tuple(s.segment_id for s in plan.segments) + tuple(r.run_id for r in plan.runs)
    folder = ledger.folder(plan.segments[0].trunk_id)
    requeued: list[bool] = []
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(element, "requeue", lambda: requeued.append(True) or True)
    monkeypatch.setattr(element, "stop_on_signals", lambda: None)

    def run(spent: float | None) -> int:
        def work_on(*_: object) -> None:
            if spent is not None:
                folder.path.mkdir(parents=True, exist_ok=True)
                folder.write_status(state="stopped", spent=spent)

        monkeypatch.setattr(element, "work_on", work_on)
        element.run_element(tmp_path / "plan.json", ledger.runs_dir, "launch", "s", tasks)
        return len(requeued)

    return run


def test_a_stopped_job_goes_back_into_the_queue_as_long_as_it_trains(start: Any) -> None:
    assert [start(10.0 * n) for n in range(8)] == list(range(1, 9))


def test_a_job_that_trains_nothing_ends_after_three_starts(start: Any) -> None:
    assert start(None) == 1
    assert start(5.0) == 2  # the count begins again
    assert start(5.0) == 3
    with pytest.raises(element.TasksFailed, match=r"3 starts.*timeout_min"):
        start(5.0)


def test_a_task_that_failed_without_a_status_is_not_tried_again(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the status cannot say so: the worker's own memory must."""
    real = element.queue_of

    def failing(*given: Any) -> Any:
        queue = real(*given)
        for task in queue.tasks:
            queue.fail(task)
        return queue

    monkeypatch.setattr(element, "queue_of", failing)
    with pytest.raises(element.TasksFailed, match="not done"):
        start(None)
