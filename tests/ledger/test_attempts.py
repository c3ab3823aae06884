"""How attempts end: causes are kept, a silent death is found out, a full disk keeps its word."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys

import pytest

from ledger.attempts import WIDTH, Attempt, AttemptLog, settled
from ledger.jobs import JobRun
from sweeps.backends.slurm.queue import job_run


def begin(log: AttemptLog, **changes: object) -> int:
    values = {"task_id": "t", "launch_id": "l", "devices": 2, "on_gpu": False, **changes}
    return log.begin(**values)  # type: ignore[arg-type]


def test_each_attempt_has_one_line_and_its_cause(tmp_path):
    log = AttemptLog(tmp_path)
    for cause in ("stopped", "failed", "finished"):
        log.end(begin(log), cause, "x" * 5000)
    assert [(a.attempt, a.cause) for a in log.read()] == [
        (1, "stopped"),
        (2, "failed"),
        (3, "finished"),
    ]
    assert all(len(line) == WIDTH for line in log.path.read_bytes().splitlines(keepends=True))


def test_the_next_attempt_closes_one_that_ended_without_a_cause(tmp_path):
    log = AttemptLog(tmp_path)
    begin(log)
    [silent] = log.read()
    assert silent.cause is None
    beat = silent.started + 5
    begin(log)
    log.settle([silent], living=False, heartbeat=beat)
    killed, living = log.read()
    assert (killed.cause, killed.ended) == ("killed", beat)
    assert living.cause is None
    assert killed.hours(now=0) == pytest.approx(2 * 5 / 3600)


def test_a_torn_line_is_left_out_and_written_over(tmp_path):
    log = AttemptLog(tmp_path)
    log.end(begin(log), "stopped")
    with log.path.open("ab") as file:
        file.write(b'{"attempt": 2, "task_')
    assert [a.attempt for a in log.read()] == [1]
    assert begin(log) == 2
    assert [a.attempt for a in log.read()] == [1, 2]


def test_a_lost_claim_is_noted_also_after_the_next_worker_closed_the_line(tmp_path):
    first, second = AttemptLog(tmp_path), AttemptLog(tmp_path)
    number = begin(first)
    before = second.read()
    begin(second)
    second.settle(before, living=False)
    first.end(number, "lost claim")
    assert [a.cause for a in second.read()] == ["lost claim", None]


OPEN = Attempt(1, "t", "l", 1000.0, "n1", 7, job_id="5_0")
STOPPED = dataclasses.replace(OPEN, ended=1100.0, cause="stopped", note="SIGTERM")


def ran(state: str, started: float | None = 990.0, ended: float | None = 1105.0) -> JobRun:
    return job_run("5_0", state, started, ended, "0:9")


@pytest.mark.parametrize(
    ("attempt", "jobs", "cause", "is_settled"),
    [
        (OPEN, [ran("NODE_FAIL")], "node failure", True),
        (OPEN, [ran("OUT_OF_MEMORY")], "out of memory", True),
        (OPEN, [ran("FAILED")], "killed", True),
        (OPEN, [ran("RUNNING", ended=None)], "killed", False),  # ask again
        (OPEN, [], "killed", False),  # the accounting is late
        (OPEN, None, "killed", True),  # no accounting
        (STOPPED, [ran("PREEMPTED")], "preempted", True),
        (STOPPED, [ran("TIMEOUT")], "time limit", True),
        (STOPPED, [ran("CANCELLED")], "cancelled", True),
        (STOPPED, [ran("COMPLETED")], "stopped", True),
        (STOPPED, [ran("RUNNING", ended=None)], "stopped", False),
        # the job ran again since: what counts is the time within which the attempt began
        (STOPPED, [ran("REQUEUED"), ran("RUNNING", 1200.0, None)], "requeued", True),
        (STOPPED, [ran("PREEMPTED"), ran("RUNNING", 1003.0, None)], "preempted", True),
        # accounting has no start of a run that was preempted at once
        (STOPPED, [ran("PREEMPTED", None), ran("COMPLETED", 1110.0, 1200.0)], "preempted", True),
        (STOPPED, [ran("PREEMPTED", 1001.0)], "preempted", True),  # its clock is a second ahead
        (dataclasses.replace(STOPPED, cause="time limit"), [ran("REQUEUED")], "time limit", True),
        (dataclasses.replace(STOPPED, cause="time limit"), [ran("PREEMPTED")], "preempted", True),
        (dataclasses.replace(STOPPED, cause="preempted"), [ran("REQUEUED")], "preempted", True),
    ],
)
def test_slurm_has_the_last_word_on_why(attempt, jobs, cause, is_settled):
    found = settled(attempt, jobs)
    assert (found.cause, found.settled) == (cause, is_settled)
    assert found.ended is not None


FILL = """
import sys, pathlib
from ledger.attempts import AttemptLog
log = AttemptLog(pathlib.Path(sys.argv[1]))
number = log.begin("t", "l", 1, False)
try:
    with open(sys.argv[1] + "/filler", "wb", buffering=0) as file:
        while True:
            if not file.write(b"x" * 4096):
                break
except OSError as error:
    log.end(number, "disk full", str(error))
[attempt] = log.read()
assert attempt.cause == "disk full", attempt
"""


def test_a_full_disk_still_takes_the_end_of_an_attempt(tmp_path):
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a small file system needs root and unshare")
    script = (
        f"mount -t tmpfs -o size=64k none {tmp_path} || exit 77; "
        f"{sys.executable} -c '{FILL}' {tmp_path}"
    )
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=60
    )
    if ended.returncode == 77 or "unshare failed" in ended.stderr:
        pytest.skip("no mount namespace here")
    assert ended.returncode == 0, ended.stderr
