"""`launch=slurm` on a real Slurm that slurm/dev_cluster starts; skipped where there is none."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.backends.slurm.real.client import jobs_files, queue, results, slurm, wait
from tests.sweeps.backends.slurm.real.conftest import MAX_ARRAY_SIZE
from tests.sweeps.conftest import REPO

pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.slow]  # one cluster, one worker

STUDY = [
    *("-m", "study=quick", "size=9k", "train.val_tokens=1024", "train.warmup_budget=2e8"),
    *("launch=slurm", "launch.slurm.pack_min=0"),
]
HELD = "+launch.slurm.sbatch.hold=true"  # nothing runs: what was submitted can be looked at


@pytest.fixture(autouse=True)
def _empty_queue(cluster):
    yield
    subprocess.run(["scancel", "--me"], check=True, timeout=30)
    wait(lambda: not slurm("squeue", "-h"), 60)


def elements(studies: Path) -> list[dict]:
    """Every array element of every launch below a folder of studies."""
    arrays = [a for file in jobs_files(studies) for a in json.loads(file.read_text())["arrays"]]
    return [element for array in arrays for element in array["elements"]]


def tasks(studies: Path) -> list[str]:
    return sorted(task for element in elements(studies) for task in element["tasks"])


def ends(submitted: list[dict]) -> dict[str, str]:
    """Slurm's last word on each element, by its first task, once all have ended. What never
    started may be missing: accounting leaves it out."""
    names = {element["job_id"]: element["tasks"][0] for element in submitted}

    def states() -> dict[str, str]:
        columns = slurm("sacct", "-n", "-X", "-P", "-j", ",".join(names), "-o", "JobID,State")
        lines = [line.split("|") for line in columns.splitlines()]
        return {names[job]: state.split()[0] for job, state in lines if job in names}

    wait(lambda: not slurm("squeue", "-h"))
    wait(lambda: not {"RUNNING", "PENDING", "REQUEUED"} & set(states().values()), 30)
    return states()


def test_runs_are_scored_in_their_own_jobs_and_done_runs_alone(cluster, sweep, tmp_path):
    study = [*STUDY, "model=vanilla", "budget=3e8,6e8"]
    assert sweep(*study[:-1], "budget=3e8", "study.evaluate=corpus").returncode == 0
    wait(lambda: not slurm("squeue", "-h"))

    def scored() -> set[str]:
        files = (tmp_path / "runs").glob("*/evaluations/corpus.json")
        return {file.parents[1].name for file in files}

    first = scored()
    assert first == results(tmp_path / "runs").keys()
    assert len(first) == 1
    assert sweep(*study).returncode == 0
    wait(lambda: not slurm("squeue", "-h"))
    trained = results(tmp_path / "runs")
    assert len(trained) == 2
    assert scored() == first
    ended = sweep(*study, "study.evaluate=corpus")  # one run is left to score, none to train
    assert "0 runs and 1 evaluation submitted" in ended.stdout
    wait(lambda: not slurm("squeue", "-h"))
    assert scored() == trained.keys()
    assert results(tmp_path / "runs") == trained
    names = tasks(tmp_path / "studies")
    assert len(names) == len(set(names))


def test_a_study_is_submitted_at_once_and_finishes(cluster, sweep, tmp_path):
    study = [*STUDY, "model=vanilla,mor", "budget=3e8,6e8"]
    ended = sweep(*study)
    assert ended.returncode == 0, ended.stderr
    # two trunks: a segment, its cool-down, a second segment, its cool-down, each an array of two
    assert re.search(r"4 runs submitted as 8 jobs in 4 arrays: \d+ ... \d+", ended.stdout)
    assert "python -m sweeps watch quick" in ended.stdout
    assert not results(tmp_path / "runs")  # it did not wait for them
    wait(lambda: len(results(tmp_path / "runs")) == 4)
    assert set(ends(elements(tmp_path / "studies")).values()) == {"COMPLETED"}
    assert "all 4 runs of study quick are done already" in sweep(*study).stdout


def test_each_cooldown_waits_for_its_own_segment_and_one_that_fails_cancels_it(
    cluster, sweep, tmp_path
):
    study = [*STUDY, "model=vanilla", "budget=3e8,6e8", "train.clip=1e30", "train.lr=1e-3,1e30"]
    assert sweep(*study).returncode == 0
    wait(lambda: not slurm("squeue", "-h"))  # nothing pends for ever
    ends_of = ends(elements(tmp_path / "studies"))
    completed = {task for task, state in ends_of.items() if state == "COMPLETED"}
    [failed] = [task for task, state in ends_of.items() if state == "FAILED"]
    # of the trunk that diverged the first segment failed; the second and both runs never started
    assert failed.endswith("@2.4e8")
    assert len(completed) == 4
    assert not [task for task in completed if task.startswith(failed.split("@")[0])]
    found = results(tmp_path / "runs")
    assert [r["status"] for r in found.values()] == ["done", "done"]
    assert found.keys() < completed


def test_short_runs_share_one_job(cluster, sweep, tmp_path):
    ended = sweep(*STUDY, "model=vanilla,mor", "budget=3e8,6e8", "launch.slurm.pack_min=30")
    assert "4 runs submitted as 1 job in 1 array" in ended.stdout, ended.stderr
    [element] = elements(tmp_path / "studies")
    assert len(element["tasks"]) == 8
    wait(lambda: len(results(tmp_path / "runs")) == 4)


def test_a_long_array_is_split_and_what_is_queued_is_not_submitted_again(cluster, sweep, tmp_path):
    runs = MAX_ARRAY_SIZE + 2
    study = [*STUDY, "model=vanilla", "budget=3e8", HELD, f"seed=range({runs})"]
    assert f"{runs} runs submitted as {2 * runs} jobs in 4 arrays" in sweep(*study).stdout
    arrays = json.loads(jobs_files(tmp_path / "studies")[0].read_text())["arrays"]
    assert sorted(len(array["elements"]) for array in arrays) == [2, 2, *[MAX_ARRAY_SIZE] * 2]
    ours = {element["job_id"] for array in arrays for element in array["elements"]}
    assert set(queue("%i")) == ours
    assert "in the queue already" in sweep(*study).stdout
    assert len(queue("%i")) == 2 * runs
    more = sweep(*STUDY, "model=vanilla", "budget=3e8", HELD, f"seed=range({runs + 1})")
    assert "1 run submitted as 2 jobs" in more.stdout
    assert f"{runs} runs are in the queue already" in more.stdout
    segment = next(array for array in arrays if not array["depends_on"])["array_id"]
    slurm("scancel", segment)
    again = sweep(*study)
    wait(lambda: len(queue("%i")) == 2 * (runs + 1), 30)
    assert "runs submitted" in again.stdout


def test_a_submission_that_was_killed_half_way_is_completed_by_the_same_command(
    cluster, sweep, tmp_path
):
    study = [*STUDY, "model=vanilla,mor", "budget=3e8,6e8", HELD]
    count, real = tmp_path / "count", subprocess.check_output(["which", "sbatch"], text=True)
    wrapper = tmp_path / "bin" / "sbatch"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/bash\n[ "$1" = --test-only ] && exec {real.strip()} "$@"\n'
        f"echo >> {count}; [ $(wc -l < {count}) -lt 3 ] || exec kill -9 $PPID\n"
        f'exec {real.strip()} "$@"\n'
    )
    wrapper.chmod(0o755)
    environment = {**os.environ, "PATH": f"{wrapper.parent}:{os.environ['PATH']}"}
    folders = [f"{name}_dir={tmp_path / name}" for name in ("runs", "studies")]
    command = [sys.executable, str(REPO / "sweep.py"), *study, *folders]
    killed = subprocess.run(command, cwd=tmp_path, env=environment, timeout=60, check=False)
    assert killed.returncode == -9
    before = tasks(tmp_path / "studies")
    assert len(before) == 4  # two arrays of two
    rest = sweep(*study)
    assert rest.returncode == 0, rest.stderr
    assert len(tasks(tmp_path / "studies")) == len(set(tasks(tmp_path / "studies"))) == 8
    assert len(queue("%i")) == 8
    # what was submitted now waits for the segments of the first submission, each for its own
    waits = dict(line.split("|") for line in queue("%i|%E"))
    [second] = [f for f in jobs_files(tmp_path / "studies") if "afterok" in f.read_text()]
    first_ids = {e["job_id"] for e in elements(tmp_path / "studies") if e["tasks"][0] in before}
    for array in json.loads(second.read_text())["arrays"]:
        [element] = array["elements"]
        needed = array["depends_on"].removeprefix("afterok:")
        assert needed.split("_")[0] in waits[element["job_id"]]
        assert needed in first_ids or needed in waits


def test_shapes_follow_the_size_and_its_overrides(cluster, sweep, tmp_path):
    sizes = "++launch.slurm.per_size={9k:{mem_gb:3},16k:{gpus_per_node:1,cpus_per_task:2}}"
    ended = sweep(*STUDY, "model=vanilla,mor", "budget=3e8", "size=9k,16k", sizes, HELD)
    assert ended.returncode == 0, ended.stderr
    found = sorted(line.split("|") for line in queue("%m|%C|%b"))
    assert found == [["3G", "1", "N/A"]] * 4 + [["9G", "2", "gres:gpu:1"]] * 4


def test_two_submissions_at_the_same_moment_train_each_run_once(cluster, tmp_path):
    study = [*STUDY, "model=vanilla,mor", "budget=4e8", "launch.slurm.pack_min=30"]
    folders = [f"{name}_dir={tmp_path / name}" for name in ("runs", "studies")]
    command = [sys.executable, str(REPO / "sweep.py"), *study, *folders]
    both = [subprocess.Popen(command, cwd=tmp_path) for _ in range(2)]
    assert [submission.wait(60) for submission in both] == [0, 0]
    wait(lambda: len(results(tmp_path / "runs")) == 2)
    wait(lambda: not slurm("squeue", "-h"))
    for folder in (tmp_path / "runs").iterdir():
        assert json.loads((folder / "status.json").read_text())["attempt"] == 1


def test_a_job_near_its_time_limit_checkpoints_and_goes_on_under_the_same_id(
    cluster, sweep, tmp_path
):
    study = [*STUDY, "model=mor", "budget=4e9", "runtime.checkpoint_s=1000"]
    submitted = sweep(*study, "launch.slurm.pack_min=30")
    assert submitted.returncode == 0, submitted.stderr
    [element] = elements(tmp_path / "studies")
    wait(lambda: list((tmp_path / "runs").glob("*/metrics.jsonl")))
    slurm("scancel", "--signal=USR2", element["job_id"])  # what Slurm sends before a time limit
    wait(lambda: list((tmp_path / "runs").glob("*/checkpoints/step-*/meta.json")))
    wait(lambda: results(tmp_path / "runs"), 180)
    assert set(ends([element]).values()) == {"COMPLETED"}
    runs = slurm("sacct", "-n", "-X", "-D", "-P", "-j", element["job_id"], "-o", "State")
    assert len(runs.splitlines()) == 2  # the same job, twice
    [log] = (tmp_path / "runs").glob("*-trunk-*/log.txt")
    assert "resumed from step-" in log.read_text()


def test_a_cancelled_job_checkpoints_and_stays_cancelled(cluster, sweep, tmp_path):
    assert sweep(*STUDY, "model=mor", "budget=8e10", "launch.slurm.pack_min=30").returncode == 0
    wait(lambda: list((tmp_path / "runs").glob("*/metrics.jsonl")))
    [element] = elements(tmp_path / "studies")
    slurm("scancel", element["job_id"])
    assert set(ends([element]).values()) == {"CANCELLED"}
    assert list((tmp_path / "runs").glob("*/checkpoints/step-*/meta.json"))


def git(folder: Path, *arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=folder, text=True).strip()


def test_an_edit_after_submission_does_not_reach_the_jobs(cluster, tmp_path):
    code = tmp_path / "code"
    for name in ("ledger", "mor", "sweeps", "hydra_plugins", "conf"):
        shutil.copytree(REPO / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "sweep.py", code)
    (code / ".gitignore").write_text("__pycache__/\n")
    git(code, "init", "-q")
    git(code, "add", ".")
    git(code, "-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "-q", "-m", "x")
    (code / "sweeps" / "backends" / "extra.py").write_text("")  # not known to git
    edited = code / "mor" / "train" / "run.py"
    edited.write_text(edited.read_text() + "\n# an edit before submission\n")
    study = [*STUDY, "model=vanilla", "budget=3e8", "launch.slurm.pack_min=30", HELD]
    command = [sys.executable, str(code / "sweep.py"), *study]
    subprocess.run(command, cwd=code, check=True, timeout=60, capture_output=True)
    (code / "mor" / "train" / "run.py").write_text("raise RuntimeError('the edited code ran')\n")
    [file] = jobs_files(code / "studies")
    assert (file.parent / "code" / "sweeps" / "backends" / "extra.py").exists()
    assert "an edit before submission" in (file.parent / "code" / "changes.diff").read_text()
    slurm("scontrol", "release", *{e["job_id"] for e in elements(code / "studies")})
    wait(lambda: results(code / "runs"))
    [result] = results(code / "runs").values()
    assert result["git_commit"] == git(code, "rev-parse", "HEAD") + "+changes"
    assert result["diff_digest"] == json.loads(file.read_text())["code"]["diff_digest"]


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_processes_of_a_job_find_each_other(cluster, nodes, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import torch, torch.distributed as dist\n"
        "from sweeps.backends.slurm.element import export_ranks\n"
        "export_ranks()\n"
        "dist.init_process_group('gloo')\n"
        "mine = torch.tensor([float(dist.get_rank() + 1)])\n"
        "dist.all_reduce(mine)\n"
        "assert (dist.get_world_size(), mine.item()) == (2, 3.0)\n"
        "dist.barrier()\n"
        "dist.destroy_process_group()\n"
    )
    subprocess.run(
        ["sbatch", "--wait", f"--nodes={nodes}", "--ntasks=2", f"--output={tmp_path}/log",
         f"--wrap=srun {sys.executable} {program}"],
        check=True, timeout=120, env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip


def test_the_processes_of_a_job_train_one_run_together(cluster, sweep, tmp_path):
    study = [*STUDY, "model=vanilla", "budget=3e8", "launch.slurm.pack_min=30"]
    ended = sweep(*study, "launch.slurm.gpus_per_node=2")  # GPUs in name only: gloo on CPUs
    assert "1 run submitted as 1 job" in ended.stdout, ended.stderr
    wait(lambda: results(tmp_path / "runs"))
    assert set(ends(elements(tmp_path / "studies")).values()) == {"COMPLETED"}
    [file] = jobs_files(tmp_path / "studies")
    logs = "".join(log.read_text() for log in (file.parent / "workers").glob("*_log.out"))
    assert len(set(re.findall(r"local_rank=(\d)\(2\)", logs))) == 2
    [run] = [p.parent for p in (tmp_path / "runs").glob("*/result.json")]
    assert json.loads((run / "status.json").read_text())["attempt"] == 1


REFUSED = {
    "launch.slurm.partition=nope": "choose one of main, short, low, low_nograce, high",
    "launch.slurm.gpus_per_node=4": "no node with more than 2 GPUs",
    "launch.slurm.constraint=nope": "Invalid feature specification",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_the_cluster_cannot_do_is_refused_in_one_sentence(cluster, refused, setting):
    said = refused(*STUDY, "model=mor", "budget=4e8", setting)
    assert REFUSED[setting] in said
    assert setting.split("=")[0].split(".")[-1] in said
    assert not queue("%i")


def test_a_time_limit_above_the_partitions_is_refused_and_estimates_are_capped(
    cluster, sweep, refused, tmp_path
):
    short = [*STUDY, "model=mor", "launch.slurm.partition=short", HELD]
    said = refused(*short, "budget=4e8", "launch.slurm.timeout_min=90")
    assert "launch.slurm.timeout_min=90: partition short ends jobs after 60 minutes" in said
    assert sweep(*short, "budget=4e15").returncode == 0  # days; it goes on after requeues
    assert set(queue("%l")) == {"1:00:00"}


@pytest.mark.parametrize("launch", ["slurm", "auto"])
def test_a_controller_that_does_not_answer_is_said_and_nothing_runs_here(
    cluster, refused, tmp_path, monkeypatch, launch
):
    text = (cluster / "slurm.conf").read_text()
    dead = tmp_path / "slurm.conf"
    dead.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", text) + "MessageTimeout=2\n")
    monkeypatch.setenv("SLURM_CONF", str(dead))
    said = refused(*STUDY, "model=mor", "budget=4e8", f"launch={launch}")
    assert "Slurm's controller does not answer" in said
    assert "launch=local" in said
    assert not list(tmp_path.glob("runs/*"))


def test_speeds_are_measured_on_a_node_before_the_study_is_priced(cluster, sweep, tmp_path):
    ended = sweep(*STUDY, "model=vanilla,mor", "budget=3e8", "launch.calibrate=true",
                  "launch.calibrate_s=0.1")  # fmt: skip
    assert ended.returncode == 0, ended.stderr + ended.stdout
    files = list((tmp_path / "runs" / ".speeds").glob("*.json"))
    assert {json.loads(file.read_text())["model"] for file in files} == {"vanilla", "mor"}
    (plan,) = (tmp_path / "studies" / "quick").glob("plan.json")
    assert len(json.loads(plan.read_text())["runs"]) == 2
    wait(lambda: not slurm("squeue", "-h"))
    assert len(results(tmp_path / "runs")) == 2
