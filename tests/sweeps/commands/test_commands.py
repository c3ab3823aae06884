"""The commands as a user types them, on a study that nothing was trained for."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from ledger.attempts import AttemptLog
from ledger.errors import UserError
from ledger.ids import folder_of
from ledger.store import Ledger
from sweeps.__main__ import app
from sweeps.backends.slurm.reasons import why_waiting
from sweeps.causes import ENDS
from sweeps.commands.cancel import cancel_run, cancel_study
from sweeps.commands.find import find_folder, find_target
from sweeps.commands.logs import follow_log
from sweeps.commands.retry import runs_to_retry
from sweeps.launches import add_to_study, new_launch
from sweeps.task_queue import Queue, read_tasks
from tests.conftest import REPO
from tests.sweeps.store import Store, fake_slurm


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    return Store(tmp_path, [1e8, 2e8], seeds=2)


def sweeps(*arguments: str) -> str:
    ended = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_a_study_goes_by_name_or_path_and_a_run_by_any_unique_beginning(store):
    for name in ("s", "studies/s", str(store.studies_dir / "s")):
        assert json.loads(sweeps("status", name, "--json"))["study"] == "s"
    run = store.runs()[0]
    store.begin(run)
    target = find_target(run[:-3], store.studies_dir)
    assert target.task is not None
    assert target.task.task_id == run
    assert find_folder(run[:-3], store.studies_dir, store.folder / "runs").run_id == run
    with pytest.raises(UserError) as ambiguous:
        find_target("vanilla-tiny-1", store.studies_dir)
    for one in store.runs():
        assert (one in str(ambiguous.value)) == one.startswith("vanilla-tiny-1")
    with pytest.raises(UserError, match="no such"):
        find_target("mor-9k", store.studies_dir)


def test_a_watch_that_is_no_window_prints_what_status_does(store, monkeypatch):
    for segment in store.segments():
        store.finish_segment(segment)
    for run in store.runs():
        store.result(run)
        store.begin(run, state="done", step=200, flops_per_s=1e9).end(1, "finished")
    monkeypatch.delenv("COLUMNS", raising=False)  # parallel tests have it
    text = sweeps("watch", "s")
    assert text == sweeps("status", "s")
    assert max(map(len, text.splitlines())) > 80
    monkeypatch.setenv("COLUMNS", "60")  # what a user has set counts
    assert sweeps("watch", "s") == sweeps("status", "s")


def test_a_watch_that_is_interrupted_leaves_what_it_saw(store, monkeypatch):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    store.begin(store.segments()[0], claim=True)
    monkeypatch.setattr("sweeps.__main__.time.sleep", interrupt)
    ended = CliRunner().invoke(app, ["watch", "s"])
    assert ended.output.count("study s\n") == 1
    assert "running" in ended.output


def test_logs_show_and_follow_until_the_run_is_let_go(store):
    run = store.runs()[0]
    with pytest.raises(UserError, match="has not begun"):
        sweeps("logs", run)
    store.begin(run, claim=True)
    folder = store.ledger.folder(run)
    folder.log_file.write_text("one\ntwo\n")
    assert sweeps("logs", run, "-n", "1") == "two\n"
    seen: list[str] = []
    thread = threading.Thread(target=follow_log, args=(folder, 8, seen.append))
    thread.start()
    with folder.log_file.open("a") as file:
        file.write("three\n")
    time.sleep(0.1)
    (folder.path / "claim.json").unlink()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert "".join(seen) == "three\n"


def test_cancel_names_tasks_and_no_worker_of_that_launch_takes_the_tasks(store):
    run, larger = store.runs()[:2]
    first, second = store.segments()[:2]
    task = next(task for task in store.view().tasks if task.task_id == larger)
    assert set(cancel_run(store.view(), task).tasks) == {larger, second}  # `first` is still needed

    def queue(launch_id: str, folder) -> Queue:
        found = Queue(
            read_tasks(store.launch.folder.plan_file, store.ledger), store.ledger, launch_id,
            launch=folder,
        )  # fmt: skip
        found.refresh()
        return found

    left = {t.task_id for t in queue(store.launch.launch_id, store.launch.folder).open()}
    assert left == {run, first, *store.runs()[2:], *store.segments()[2:]}
    assert store.states()[larger] == "cancelled"
    cancel_study(store.view())
    assert not queue(store.launch.launch_id, store.launch.folder).open()
    assert len(queue("a later launch", store.launch.folder.study.launch("x")).open()) == 8


def test_cancel_ends_only_the_jobs_that_hold_nothing_else(store, monkeypatch):
    one, two, three, _ = store.runs()
    segments = store.segments()
    store.submitted({"5_0": [segments[0], one], "5_1": [segments[1], two], "6": [three]})
    queue = "".join(f"{job}|RUNNING|None|n1|1|10:00|main|(null)\n" for job in ("5_0", "5_1", "6"))
    monkeypatch.setenv("PATH", f"{fake_slurm(store.folder, queue)}{os.pathsep}/usr/bin:/bin")
    task = {task.task_id: task for task in store.view().tasks}
    assert cancel_run(store.view(), task[one]).jobs == ()  # its segment leads to `two`, too
    assert store.states()[one] == "cancelled"  # though its job still runs
    assert cancel_run(store.view(), task[three]).jobs == ("6",)
    assert "scancel 6\n" in (store.folder / "calls").read_text()
    assert cancel_study(store.view()).jobs == ("5_0", "5_1", "6")


def test_cancel_stops_the_workers_of_its_own_study_only(store, monkeypatch):
    other = new_launch(store.plan, store.ledger, store.studies_dir / "other")
    add_to_study(other)
    here = {"claim": True, "host": socket.gethostname()}
    shared, own = store.runs()[:2]
    store.begin(shared, **here, pid=1001, launch_id=other.launch_id)
    store.begin(own, **here, pid=1002, launch_id=store.launch.launch_id)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *given: asked.append(given))
    ended = cancel_study(store.view())
    assert set(ended.tasks) == {*store.runs(), *store.segments()}
    assert (ended.workers, ended.elsewhere) == ((1002,), (shared,))
    assert asked == [(1002, signal.SIGTERM)]
    assert own in sweeps("cancel", "other")
    assert asked[1:] == [(1001, signal.SIGTERM)]


def test_retry_takes_what_ended_early_and_diverged_ones_only_when_asked(store):
    done, failed, diverged, running = store.runs()
    store.result(done)
    store.result(diverged, "diverged")
    store.begin(failed, state="failed", error="words").end(1, "failed", "words")
    store.begin(running, claim=True)
    look = store.view().look()
    assert runs_to_retry(look, None, failed=True, diverged=False) == ([failed], [diverged])
    assert set(runs_to_retry(look, None, failed=True, diverged=True)[0]) == {failed, diverged}
    assert runs_to_retry(look, None, failed=False, diverged=False) == ([], [diverged])
    with pytest.raises(UserError, match=r"settings.json is missing or not"):
        sweeps("retry", "s")


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"launch": 3}'])
def test_settings_that_were_not_written_here_are_named(text, store):
    file = store.studies_dir / "s" / "settings.json"
    file.write_text(text)
    autopilot = ("autopilot", "s", "--gpu-hours", "1")
    for command in (("benchmark", "s"), autopilot, ("launch", "s")):
        with pytest.raises(UserError) as refused:
            sweeps(*command)
        assert os.path.relpath(file) in str(refused.value)


def test_a_log_shows_as_many_lines_as_asked(store):
    run = store.runs()[0]
    store.begin(run)
    lines = [f"line {number}\n" for number in range(5)]
    store.ledger.folder(run).log_file.write_text("".join(lines))
    assert sweeps("logs", run) == "".join(lines)
    for number in range(8):
        for more in ((), ("-f",)):
            shown = sweeps("logs", run, "-n", str(number), *more).splitlines(keepends=True)
            assert shown == lines[5 - min(number, 5) :]
    refused = CliRunner().invoke(app, ["logs", run, "-n", "-1"])
    assert refused.exit_code == 2
    assert "-n=-1" in refused.stderr


def test_why_counts_the_attempts_at_one_task(store):
    first, second = store.segments()[:2]
    trunk = folder_of(first)
    assert folder_of(second) == trunk
    log = AttemptLog(store.ledger.folder(trunk).path)
    for task in (first, second, first, second):
        log.path.parent.mkdir(parents=True, exist_ok=True)
        log.end(log.begin(task, "launch", 1, False), "failed")
    text = sweeps("why", second)
    assert [text.count(f"attempt {number}  ") for number in (1, 2, 3, 4)] == [1, 1, 0, 0]


def test_why_says_it_in_words(store, monkeypatch):
    run, other = store.runs()[:2]
    store.begin(run, state="failed", error="no room").end(1, "disk full", "no room")
    store.ledger.folder(run).log_file.write_text("the last words\n")
    assert "nothing works on its study now" in sweeps("why", other)
    text = sweeps("why", run)
    for words in ("disk full", "free some space", f"retry {run}", "the last words", "attempt 1"):
        assert words in text
    store.submitted({"7": [other]})
    queue = "7|PENDING|QOSMaxJobsPerUserLimit||N/A|10:00|main|(null)\n"
    monkeypatch.setenv("PATH", f"{fake_slurm(store.folder, queue)}{os.pathsep}/usr/bin:/bin")
    assert "as many jobs as your QOS allows" in sweeps("why", other)
    monkeypatch.setenv("PATH", f"{fake_slurm(store.folder)}{os.pathsep}/usr/bin:/bin")
    assert f"its job has ended without it; python -m sweeps retry {other}" in sweeps("why", other)


def test_reasons_are_matched_by_their_longest_beginning():
    assert "down, drained or reserved" in why_waiting("ReqNodeNotAvail, Unav:n1", "r", "1")
    assert "retry r" in why_waiting("DependencyNeverSatisfied", "r", "1")
    assert "trunk" in why_waiting("Dependency", "r", "1")
    assert "scontrol release 1" in why_waiting("JobHeldUser", "r", "1")
    assert "Odd" in why_waiting("Odd", "r", "1")


def test_every_cause_has_its_sentence():
    from ledger.attempts import CAUSES

    assert set(CAUSES) - set(ENDS) == {"finished", "lost claim"}


def test_sync_without_a_key_is_one_sentence(store, monkeypatch):
    assert "nothing was tracked offline" in sweeps("sync", "s")
    (store.ledger.folder(store.runs()[0]).path / "wandb" / "offline-run-1").mkdir(parents=True)
    monkeypatch.setenv("NETRC", str(store.folder / "none"))
    monkeypatch.setenv("HOME", str(store.folder))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"no API key.*WANDB_API_KEY.*wandb login") as refused:
        sweeps("sync", "s")
    assert "runtime.wandb" not in str(refused.value)  # they are tracked offline already


def test_a_run_of_no_study_is_synced_and_found_by_its_folder(store):
    alone = store.folder / "runs" / "vanilla-9k-1e9-0badc0de"
    alone.mkdir(parents=True)
    assert "nothing was tracked offline" in sweeps("sync", alone.name)
    with pytest.raises(UserError) as unknown:
        sweeps("why", alone.name)
    for words in ("studies are s", "sweeps logs", store.runs()[0]):
        assert words in str(unknown.value)
    with pytest.raises(UserError, match="no such run"):
        sweeps("sync", "nosuch")


def test_launch_names_retry_where_all_was_cancelled(store):
    sweeps("cancel", "s")
    assert "retry s" in sweeps("launch", "s")


def test_a_run_store_that_was_moved_is_not_taken_for_an_empty_one(store):
    run = store.runs()[0]
    store.result(run)
    moved = store.folder / "elsewhere"
    store.ledger.runs_dir.rename(moved)
    named = f"runs_dir={store.ledger.runs_dir}"
    every = ("status", "watch", "cancel", "retry", "launch", "sync", "benchmark")
    for command in [*([one, "s"] for one in every), ["status"], ["why", run], ["retry", run]]:
        with pytest.raises(UserError, match=re.escape(named)):
            sweeps(*command)
    assert not store.ledger.runs_dir.exists()
    assert find_folder(run, store.studies_dir, moved).path == moved / run
    with pytest.raises(UserError, match="--runs-dir=<folder>"):
        sweeps("logs", run)
    plan = replace(store.plan, ledger=Ledger(moved))
    add_to_study(new_launch(plan, plan.ledger, store.studies_dir / "s"))
    found = json.loads(sweeps("status", "s", "--json"))
    assert found["counts"]["done"] == 1


def test_a_name_that_no_file_can_have_is_one_sentence(store):
    ended = subprocess.run(
        [sys.executable, "-m", "sweeps", "status", "a" * 300],
        cwd=store.folder, env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: ")


def test_no_study_at_all_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["status"], ["watch"], ["why", "x"], ["cancel", "x"], ["logs", "x"]):
        with pytest.raises(UserError):
            sweeps(*command)
