"""What a launch writes down of itself in its study's folder."""

from __future__ import annotations

import threading
from typing import Any

from ledger.plan_file import read_whole_plan, together
from sweeps import launches
from sweeps.config import ClusterConfig
from sweeps.launches import add_to_study, new_launch
from sweeps.plan import build_plan
from tests.sweeps.store import Store

OVERLAP_S = 0.2  # what another launch may take between a read and the write after it


def test_launches_at_the_same_time_all_stay_in_the_plan_of_their_study(tmp_path, monkeypatch):
    """Another launch begins each time that one has read the plan and has not written it yet."""
    store = Store(tmp_path, [1e8], seeds=3)
    study = tmp_path / "studies" / "race"
    machine = ClusterConfig("cpu", 0.3)
    plans = [build_plan("race", [run.config], store.ledger, machine) for run in store.plan.runs]
    waiting = [new_launch(plan, store.ledger, study) for plan in plans]
    begun: list[threading.Thread] = []

    def overlapped(read: Any) -> Any:
        if waiting:
            thread = threading.Thread(target=add_to_study, args=(waiting.pop(),))
            begun.append(thread)
            thread.start()
            thread.join(OVERLAP_S)
        return together(read)

    monkeypatch.setattr(launches, "together", overlapped)
    add_to_study(waiting.pop())
    for thread in begun:  # grows until the last launch was begun
        thread.join()
    planned = read_whole_plan(study / "plan.json")
    assert {run.run_id for run in planned.runs} == set(store.runs())
    assert {segment.segment_id for segment in planned.segments} == set(store.segments())
