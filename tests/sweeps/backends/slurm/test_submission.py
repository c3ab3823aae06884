"""What is handed to sbatch, and what is refused before, on a pretended Slurm."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ledger.plan_file import StudyFolder, read_plan
from mor.config import ConfigError, from_dict, replace_at
from sweeps.backends.base import Submission
from sweeps.backends.slurm import checks
from sweeps.backends.slurm.client import seconds
from sweeps.backends.slurm.cluster import Cluster, partitions
from sweeps.backends.slurm.submit import submit_plan
from sweeps.commands.find import study_view
from sweeps.config import ClusterConfig, SlurmConfig, sweep_config
from sweeps.plan import build_plan
from sweeps.resources import shape_of
from sweeps.study import kept_settings
from tests.conftest import REPO
from tests.sweeps.backends.slurm.conftest import SETTINGS, SINFO
from tests.sweeps.store import Store

GOLDEN = Path(__file__).with_name("golden_sbatch.sh")
STUDY = ["-m", "study=quick", "launch=slurm", "cluster=h100_slurm", "runtime.device=auto"]
FAR = [*STUDY, "size=16k", "model=vanilla,mor", "budget=3e19", "launch.slurm.pack_min=0"]


def normalised(script: str, tmp_path: Path) -> str:
    """The script without what differs from machine to machine and launch to launch."""
    script = script.replace(str(tmp_path), "<work>").replace(sys.executable, "<python>")
    return re.sub(r"launches/[0-9a-f-]+/", "launches/<launch>/", script)


def test_the_script_is_the_golden_one(fake_slurm, sweep, tmp_path):
    """To accept a change: delete golden_sbatch.sh beside this file, run this test twice, and read
    the difference."""
    submitted = fake_slurm()
    given = ["launch.slurm.account=lab", "launch.slurm.qos=long", "launch.slurm.constraint=ib"]
    more = ["+launch.slurm.sbatch.reservation=mine", "launch.slurm.setup=[module load cuda]"]
    ended = sweep(*FAR, *given, *more, "launch.slurm.array_parallelism=1")
    assert ended.returncode == 0, ended.stderr
    scripts = [(submitted / str(n)).read_text() for n in range(2)]
    cooldowns = normalised(scripts[1], tmp_path)
    if not GOLDEN.exists():
        GOLDEN.write_text(cooldowns)
        pytest.fail(f"{GOLDEN} was not there and is written now")
    assert cooldowns == GOLDEN.read_text()
    assert "--dependency" not in scripts[0]
    # a run of years asks for all that the partition allows, and goes on after a requeue
    assert "#SBATCH --time=1440\n" in scripts[0]


def test_several_gpus_are_one_process_each(fake_slurm, sweep, tmp_path):
    submitted = fake_slurm()
    sizes = "++launch.slurm.per_size={16k:{gpus_per_node:4,nodes:2,mem_gb:300}}"
    assert sweep(*FAR, sizes).returncode == 0
    script = (submitted / "0").read_text()
    for flag in ("gpus-per-node=4", "nodes=2", "ntasks-per-node=4", "cpus-per-task=12", "mem=300G"):
        assert f"#SBATCH --{flag}\n" in script


def test_the_record_names_every_job_and_task(fake_slurm, sweep, tmp_path):
    fake_slurm()
    assert sweep(*FAR).returncode == 0
    [file] = (tmp_path / "studies").glob("quick/launches/*/jobs.json")
    record = json.loads(file.read_text())
    assert record["launch_id"] == file.parent.name
    trunks, cooldowns = record["arrays"]
    assert (trunks["array_id"], trunks["depends_on"]) == ("100", None)
    assert (cooldowns["array_id"], cooldowns["depends_on"]) == ("101", "aftercorr:100")
    assert trunks["shape"]["gpus_per_node"] == 1
    plan = json.loads((file.parent / "plan.json").read_text())
    needs = {run["run_id"]: run["depends_on"] for run in plan["runs"]}
    for segment, run in zip(trunks["elements"], cooldowns["elements"], strict=True):
        assert segment["job_id"].split("_") == ["100", run["job_id"].split("_")[1]]
        assert needs[run["tasks"][0]] == segment["tasks"]


REFUSED = {
    "gpus_per_node=16": "partition main has no node with more than 8 GPUs",
    "cpus_per_task=100": "partition main has no node with more than 96 CPUs",
    "mem_gb=2000": "partition main has no node with more than 1900 GB of memory",
    "nodes=5": "partition main has 4 nodes",
    "timeout_min=1441": "partition main ends jobs after 1440 minutes",
    "partition=cpu": "no node of partition cpu has any",
    "partition=gpu": "no such partition is up; choose one of main, cpu",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_no_node_has_is_refused(setting, toy_run):
    name, value = setting.split("=")
    given = {name: int(value) if value.isdigit() else value}
    slurm, cluster = from_dict(SlurmConfig, given), Cluster(partitions(SINFO), 1001, True)
    shape = shape_of(replace_at(toy_run(), "runtime.device", "cuda"), slurm, ClusterConfig())
    with pytest.raises(ConfigError, match=REFUSED[setting]) as refusal:
        checks.refuse_too_large([shape], slurm, checks.partition_of(slurm, cluster))
    assert refusal.value.setting == f"launch.slurm.{'gpus_per_node' if value == 'cpu' else name}"


def test_settings_that_cannot_be_are_refused_by_name(fake_slurm, refused):
    submitted = fake_slurm()
    assert "must be at least 1" in refused(*FAR, "launch.slurm.timeout_min=0")
    said = refused(*FAR, "++launch.slurm.per_size={16k:{gpus:2}}")
    assert "launch.slurm.per_size.16k.gpus=2: no such setting" in said
    assert not list(submitted.iterdir())


def test_what_is_refused_leaves_nothing_and_the_number_that_is_suggested_is_accepted(
    fake_slurm, sweep, refused, tmp_path
):
    submitted = fake_slurm()
    said = refused(*FAR, "launch.max_gpu_hours=10")
    assert not list(submitted.iterdir())
    assert not (tmp_path / "studies" / "quick" / "launches").exists()
    assert sweep(*FAR, re.search(r"launch.max_gpu_hours=[\d.e+]+(?=, or)", said)[0]).returncode == 0


def test_a_refused_launch_leaves_the_settings_of_the_one_before(
    fake_slurm, sweep, refused, tmp_path
):
    fake_slurm()
    assert sweep(*FAR).returncode == 0
    kept = (tmp_path / "studies" / "quick" / "settings.json").read_text()
    refused(*FAR, "budget=6e19", "launch.slurm.partition=nope")
    assert (tmp_path / "studies" / "quick" / "settings.json").read_text() == kept


def test_a_study_whose_runs_wait_for_another_one_is_saved_all_the_same(
    fake_slurm, sweep, tmp_path, monkeypatch
):
    fake_slurm()
    assert sweep(*FAR).returncode == 0
    ids = [p.name for p in (tmp_path / "slurm" / "submitted").iterdir()]
    left = "PENDING|Priority||N/A|10:00|main|(null)"
    queue = "".join(f"{100 + int(n)}_{i}|{left}\n" for n in ids for i in range(9))
    (tmp_path / "slurm" / "squeue").write_text(f"#!/bin/bash\ncat <<END\n{queue}END\n")
    ended = sweep(*FAR, "study.name=other")
    assert "are in the queue already" in ended.stdout, ended.stdout + ended.stderr
    assert (tmp_path / "studies" / "other" / "plan.json").exists()
    assert (tmp_path / "studies" / "other" / "settings.json").exists()


def test_a_study_whose_runs_are_all_done_is_saved_without_a_job(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm: nothing is asked
    store = Store(tmp_path, [1e8, 2e8])
    for run in store.runs():
        store.result(run)
    configs = [run.config for run in store.plan.runs]
    plan = build_plan("sub", configs, store.ledger, ClusterConfig("cpu", 0.3))
    values = {
        **{"launch": {"mode": "slurm"}, "cluster": {"gpu": "cpu"}, "study": {"name": "sub"}},
        **{"runs_dir": str(store.ledger.runs_dir), "studies_dir": str(tmp_path / "new")},
    }
    study = sweep_config(values)
    assert submit_plan(Submission(plan, store.ledger, study, Console(quiet=True))) == []
    folder = StudyFolder(tmp_path / "new" / "sub")
    assert [run.run_id for run in read_plan(folder.plan_file).runs] == store.runs()
    assert kept_settings(folder) == study
    assert study_view("sub", tmp_path / "new").look().counts() == {"done": 2}


def test_without_accounting_what_is_lost_is_said_and_it_goes_on(fake_slurm, sweep):
    submitted = fake_slurm(settings=SETTINGS.replace("slurmdbd", "none"))
    ended = sweep(*FAR)
    assert ended.returncode == 0, ended.stderr
    assert "keeps no accounting" in ended.stdout
    assert len(list(submitted.iterdir())) == 2


def test_a_run_store_without_room_is_refused(fake_slurm, refused, sweep):
    fake_slurm()
    huge = [*STUDY, "size=1.7b", "model=vanilla", "budget=3e19", "model.init_std=0.02"]
    seeds = f"seed=range({10**3})"  # 2,000 checkpoints of 20 GB
    said = refused(*huge, seeds)
    assert "GB are free and the checkpoints of this plan need about" in said
    assert "runs_dir=" in said


def test_a_node_without_slurm_is_told_so(refused, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sbatch and srun and sinfo not found" in refused(*FAR)


def test_a_plan_is_priced_with_a_profile_and_submits_nothing(fake_slurm, sweep):
    submitted = fake_slurm()
    ended = sweep(*STUDY, "size=16k", "budget=3e19", "launch=plan")
    assert ended.returncode == 0, ended.stderr
    assert not list(submitted.iterdir())


def test_partitions_are_read_whatever_their_form():
    main, cpu = partitions(SINFO)
    assert (main.default, main.limit_min, main.gpus, main.nodes) == (True, 1440, 8, 4)
    assert (cpu.default, cpu.limit_min, cpu.gpus) == (False, 120, 0)
    [mixed] = partitions("a|up|infinite|8+|16000+|gpu:2,nvme:1|3\na|up|infinite|32|64000|gpu:4|1\n")
    assert (mixed.cpus, mixed.mem_mb, mixed.gpus, mixed.nodes) == (32, 64000, 4, 4)
    assert mixed.limit_min is None
    assert partitions("a|down|infinite|8|1|(null)|1\n") == ()
    assert [seconds(t) for t in ("30:00", "1:00:00", "2-03:00:00")] == [1800, 3600, 183600]


def test_the_repository_has_the_profiles_that_its_page_names():
    page = (REPO / "docs" / "slurm.md").read_text()
    for profile in ("generic", "dev", "h100_slurm", "h100_slurm_4gpu"):
        assert (REPO / "conf" / "cluster" / f"{profile}.yaml").exists()
        assert f"`{profile}`" in page
