"""Slurm's answers, read without Slurm: states as they are, one call for many jobs."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeps.backends.base import BackendSilent
from sweeps.backends.slurm import client
from sweeps.backends.slurm import queue as slurm_queue
from tests.sweeps.store import fake_slurm

SQUEUE = """12_0|RUNNING|None|n1|1000|1-02:03:04|main|(null)
12_1|PENDING|ReqNodeNotAvail, UnavailableNodes:n[1-2]||N/A|10:00|main|(null)
12_2|PENDING|Dependency||N/A|10:00|main|aftercorr:11_2(unfulfilled)
13|REQUEUE_HOLD|JobHoldMaxRequeue||N/A|UNLIMITED|main|(null)
99|RUNNING|None|n1|1000|10:00|main|(null)
"""
SACCT = """12_0|NODE_FAIL|1000|1100|1:0|n1
12_0|RUNNING|1200|Unknown|0:0|n2
12_1|CANCELLED by 1000|Unknown|900|0:0|None assigned
13|OUT_OF_MEMORY|1000|1050|0:125|n1
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    def answers(squeue: str = SQUEUE, sacct: str | None = SACCT):
        folder = fake_slurm(tmp_path, squeue, sacct)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return lambda: (tmp_path / "calls").read_text().splitlines()

    return answers


def test_squeue_is_asked_once_and_only_our_jobs_are_kept(slurm):
    calls = slurm()
    found = slurm_queue.queue(["12_0", "12_1", "12_2", "13"])
    assert set(found) == {"12_0", "12_1", "12_2", "13"}
    assert found["12_0"].left_s == 24 * 3600 + 2 * 3600 + 3 * 60 + 4
    assert found["12_1"].reason.startswith("ReqNodeNotAvail, Unavailable")
    assert found["12_2"].depends_on == "aftercorr:11_2(unfulfilled)"
    assert (found["13"].state, found["13"].left_s) == ("REQUEUE_HOLD", None)
    assert len(calls()) == 1
    assert "-j 12,13 " in calls()[0]


def test_each_incarnation_of_a_requeued_job_is_kept(slurm):
    calls = slurm()
    found = slurm_queue.history(["12_0", "12_1", "13"])
    assert [job.cause for job in found["12_0"]] == ["node failure", None]
    assert (found["12_0"][0].ended, found["12_0"][1].ended) == (1100.0, None)
    assert found["12_1"][0].cause == "cancelled"
    assert found["13"][0].cause == "out of memory"
    assert len(calls()) == 1


def test_no_accounting_is_told_apart_from_no_entry(slurm):
    slurm(sacct=None)
    assert slurm_queue.history(["12_0"]) is None
    slurm(sacct="")
    assert slurm_queue.history(["12_0"]) == {}


def test_a_controller_that_does_not_answer_is_not_an_empty_queue(tmp_path, monkeypatch):
    program = tmp_path / "squeue"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    program.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(BackendSilent, match="Unable to contact"):
        slurm_queue.queue(["12_0"])
    lines = "squeue: error: no DNS record\nsqueue: error: no config\nsqueue: fatal: no source\n"
    program.write_text(f"#!/bin/sh\nprintf '{lines}' >&2; exit 1\n")
    with pytest.raises(BackendSilent) as silent:
        slurm_queue.queue(["12_0"])
    assert str(silent.value) == "squeue: no source"
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(client, "TIMEOUT_S", 0.3)
    with pytest.raises(BackendSilent):
        slurm_queue.queue(["12_0"])
    program.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id' >&2; exit 1\n")
    assert slurm_queue.queue(["12_0"]) == {}


def test_a_line_that_cannot_be_read_is_not_an_empty_queue(slurm):
    slurm(squeue="12_0|RUNNING\n", sacct="12_0|FAILED\nslurm: a word\n")
    with pytest.raises(BackendSilent):
        slurm_queue.queue(["12_0"])
    assert slurm_queue.history(["12_0"]) == {}


REASONS = st.text("abc ,:[]-()XYZ_", max_size=12)
TIMES = st.integers(0, 10**9).map(str) | st.sampled_from(["Unknown", "None", "N/A", ""])
STATES = st.sampled_from([*slurm_queue.CAUSES, "RUNNING", "PENDING", "FAILED", "A_NEW_STATE"])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STATES, REASONS, TIMES, TIMES, st.sampled_from(["", " by 1000", "+"]))
def test_whatever_slurm_says_is_kept(slurm, state, reason, began, ended, more):
    slurm(
        squeue=f"12_0|{state}|{reason}|n[1-2]|{began}|1:00|main,low|afterok:3(unfulfilled)\n",
        sacct=f"12_0|{state}{more if more != '+' else ''}|{began}|{ended}|1:0|n[1-2]\n",
    )
    job = slurm_queue.queue(["12_0"])["12_0"]
    assert (job.state, job.reason, job.left_s, job.partition) == (state, reason, 60, "main,low")
    [run] = slurm_queue.history(["12_0"])["12_0"]
    assert run.cause == slurm_queue.CAUSES.get(state)
    assert run.started == (float(began) if began.isdigit() else None)
    assert run.ended == (float(ended) if ended.isdigit() else None)
