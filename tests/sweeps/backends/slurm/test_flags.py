"""What a job is submitted with: the user's flags replace ours, once; clusters with other rules."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import UserError
from mor.config import ConfigError, from_dict, replace_at
from sweeps.backends.slurm.cluster import gpus_of, partitions
from sweeps.backends.slurm.flags import (
    ALTERNATIVES,
    OURS,
    command_line,
    flags_of,
    minutes_of,
    warning_s,
)
from sweeps.config import ClusterConfig, SlurmConfig
from sweeps.resources import Shape, shape_of
from tests.sweeps.backends.slurm.test_submission import FAR

SHAPE = Shape(nodes=1, gpus_per_node=2, cpus_per_task=4, mem_gb=30)


def flags(shape: Shape = SHAPE, **settings: object) -> dict[str, object]:
    return flags_of(shape, 60, from_dict(SlurmConfig, settings), "study")


def by_hand(**sbatch: object) -> dict[str, object]:
    return flags(sbatch=sbatch)


GRES = {
    "gpu:1g.10gb:28": 28,
    "gpu:3g.20gb:2": 2,
    "gpu:3090:8": 8,
    "gpu:2080ti:4": 4,
    "gpu:tesla:no_consume:4": 4,
    "gpu:3g.20gb:2,gpu:1g.10gb:4": 6,
    "gpu:h100:8(S:0-1)": 8,
    "gpu:a100:2(S:0,2),gpu:v100:1(S:1)": 3,
    "gpu:4": 4,
    "gpu": 1,
    "nvme:1,gpu:2": 2,
    "gpumem:80": 0,
    "(null)": 0,
}


@pytest.mark.parametrize("gres", GRES)
def test_gpus_of_a_node(gres):
    assert gpus_of(gres) == GRES[gres]


TYPE = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,9}", fullmatch=True).filter(
    lambda t: t != "no_consume"
)
ITEM = st.tuples(
    TYPE | st.none(), st.booleans(), st.integers(0, 99), st.sampled_from(["", "(S:0-1)", "(S:0,2)"])
)


@given(
    st.lists(ITEM, min_size=1, max_size=4), st.sampled_from(["", "nvme:3", "bandwidth:lustre:9"])
)
def test_every_gres_adds_up(items, other):
    written = []
    for kind, unconsumed, count, where in items:
        parts = ["gpu", *([kind] if kind else []), *(["no_consume"] if unconsumed else [])]
        written.append(":".join([*parts, str(count)]) + where)
    gres = ",".join([*written, *([other] if other else [])])
    assert gpus_of(gres) == sum(count for _, _, count, _ in items)
    [partition] = partitions(f"p*|up|infinite|8+|1000+|{gres}|2\n")
    assert partition.gpus == gpus_of(gres)


def test_a_line_of_another_form_is_refused():
    with pytest.raises(UserError, match="sinfo"):
        partitions("p|up|infinite\n")


# -- flags -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sbatch", "wanted"),
    [
        ({"job_name": "x"}, {"job-name": "x"}),
        ({"job-name": "x"}, {"job-name": "x"}),
        ({"cpus_per_task": 7}, {"cpus-per-task": 7}),
        ({"gpus_per_node": "a100:2"}, {"gpus-per-node": "a100:2"}),
        ({"requeue": False}, {"requeue": None}),
        ({"no_requeue": True}, {"requeue": None, "no-requeue": True}),
        ({"mem": None}, {"mem": None}),
        ({"mem_per_cpu": "4G"}, {"mem": None, "mem-per-cpu": "4G"}),
        ({"gres": "gpu:a100:2"}, {"gres": "gpu:a100:2", "gpus-per-node": None}),
        ({"gres": "nvme:1"}, {"gres": "nvme:1", "gpus-per-node": 2}),
        ({"cpus_per_gpu": 4}, {"cpus-per-task": None, "cpus-per-gpu": 4}),
        ({"wckey": None}, {"wckey": None}),
        ({"time": "2:00:00"}, {"time": "2:00:00", "signal": "USR2@120"}),
        ({"time": "4"}, {"time": "4", "signal": "USR2@60"}),
        ({"reservation": "foo"}, {"reservation": "foo"}),
    ],
)
def test_a_flag_by_hand_replaces_ours(sbatch, wanted):
    found = by_hand(**sbatch)
    assert {flag: found.get(flag) for flag in wanted} == wanted


def test_ways_to_ask_for_gpus():
    ways = {
        None: {"gpus-per-node": 2},
        "a100": {"gpus-per-node": "a100:2"},
        "gres:gpu": {"gres": "gpu:2"},
        "gres:gpu:a100": {"gres": "gpu:a100:2"},
        "none": {},
    }
    for kind, wanted in ways.items():
        found = flags(gpus=kind)
        assert {k: v for k, v in found.items() if k in ("gres", "gpus-per-node")} == wanted
    assert flags(gpus="gres:gpu", sbatch={"gres": "nvme:1"})["gres"] == "gpu:2,nvme:1"
    without = flags(Shape(1, 0, 4, 30), gpus="a100")
    assert not {"gres", "gpus-per-node"} & without.keys()


def test_ways_to_ask_for_memory(toy_run):
    config = replace_at(toy_run(), "runtime.device", "cuda")
    for given_, wanted in (
        ({"mem_gb": "none"}, {}),
        ({"mem_gb": 64}, {"mem": "64G"}),
        ({"mem_per_cpu_gb": 3.5}, {"mem-per-cpu": "3584M"}),
        ({"mem_per_gpu_gb": 40}, {"mem-per-gpu": "40G"}),
        (
            {"mem_gb": 64, "per_size": {config.size.name: {"mem_per_gpu_gb": 8}}},
            {"mem-per-gpu": "8G"},
        ),
        ({"mem_per_cpu_gb": 4, "per_size": {config.size.name: {"mem_gb": "none"}}}, {}),
    ):
        slurm = from_dict(SlurmConfig, given_)
        found = flags_of(shape_of(config, slurm, ClusterConfig()), 60, slurm, "study")
        assert {k: v for k, v in found.items() if k.startswith("mem")} == wanted


MORE = "job_name partition time nodes account wckey gres comment exclusive"
NAMES = st.sampled_from(
    [*sorted({f.replace("-", "_") for group in ALTERNATIVES for f in group}), *MORE.split()]
).filter(lambda name: name != "gpus_per_node")
VALUES = st.sampled_from([None, False, True, "x", "7", "gpu:a100:2", "1:00:00"])


@given(
    st.dictionaries(NAMES, VALUES, max_size=5), st.sampled_from([None, "a100", "gres:gpu", "none"])
)
def test_each_flag_stands_once_and_is_the_users(sbatch, kind):
    found = flags(gpus=kind, sbatch=sbatch)
    names = Counter(re.match(r"--([\w-]+)", line)[1] for line in command_line(found))
    assert set(names.values()) == {1}
    for name, value in sbatch.items():
        flag = name.replace("_", "-")
        if value in (None, False):
            assert flag not in found
        elif flag != "gres":
            assert found[flag] == value
    assert not {"None", "False"} & {str(value) for value in found.values()}
    for group in ALTERNATIVES:  # of ours none stands beside the user's
        users = {n.replace("_", "-") for n, value in sbatch.items() if value not in (None, False)}
        if users & group:
            assert found.keys() & group == users & group


@pytest.mark.parametrize("name", [*OURS, "p", "gpus_per_node"])
def test_what_a_plan_depends_on_is_refused(name):
    with pytest.raises(ConfigError) as refusal:
        by_hand(**{name: "a100:4" if name == "gpus_per_node" else "x"})
    assert refusal.value.setting.startswith("launch.slurm.sbatch.")


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}])
def test_a_flag_has_one_value(value):
    with pytest.raises(ConfigError, match="one value"):
        by_hand(nodelist=value)


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_times_of_sbatch(days, hours, minutes, seconds):
    total = 1440 * days + 60 * hours + minutes
    assert minutes_of(f"{days}-{hours}:{minutes:02}:{seconds:02}", 5) == total
    assert minutes_of(f"{days}-{hours}", 5) == total - minutes
    assert minutes_of(f"{hours}:{minutes:02}:{seconds:02}", 5) == 60 * hours + minutes
    assert minutes_of(f"{minutes}:{seconds:02}", 5) == minutes
    assert minutes_of(total, 5) == total
    assert minutes_of("soon", 5) == 5
    assert 0 <= warning_s(total) <= 120


# -- through the command line ------------------------------------------------------------------


def header(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if "#SBATCH" in line]


def test_what_is_checked_is_what_is_submitted(fake_slurm, sweep, tmp_path):
    submitted = fake_slurm()
    asked = tmp_path / "asked"
    sbatch = tmp_path / "slurm" / "sbatch"
    sbatch.write_text(sbatch.read_text().replace("exit 0", f'{{ echo "$@" > {asked}; exit 0; }}'))
    typed = {
        "job_name": "2024_05",
        "cpus_per_task": "3",
        "gpus_per_node": "a100:1",
        "requeue": "false",
        "mem": "null",
        "wckey": "null",
        "comment": "1e3",
    }
    lines = [f"+launch.slurm.sbatch.{name}={value}" for name, value in typed.items()]
    ended = sweep(*FAR, *lines, "launch.slurm.account=2024_05")
    assert ended.returncode == 0, ended.stderr
    script = (submitted / "0").read_text()
    found = header(script)
    assert len({line.split("=")[0] for line in found}) == len(found)
    for line in (
        "--job-name=2024_05",
        "--cpus-per-task=3",
        "--gpus-per-node=a100:1",
        "--comment=1e3",
        "--account=2024_05",
    ):
        assert line in found
    assert not [line for line in found if re.match(r"--(requeue|mem|wckey)\b", line)]
    assert "--cpus-per-task=3 " in script.partition("srun")[2]
    checked = [part for part in asked.read_text().split() if part.startswith("--")]
    where = ("--array", "--output", "--error", "--open-mode", "--dependency")
    submitted_with = {line for line in found if not line.startswith(where)}
    only_checked = {"--test-only", "--wrap"}
    assert submitted_with == set(checked) - only_checked - {c for c in checked if "kill-on" in c}


@pytest.mark.parametrize(
    ("typed", "setting"),
    [
        ("launch.slurm.mem_gb=64G", "launch.slurm.mem_gb=64G"),
        ("launch.slurm.mem_per_cpu_gb=0", "launch.slurm.mem_per_cpu_gb=0"),
        ("launch.slurm.gpus=gres/gpu:a100:4", "launch.slurm.gpus=gres/gpu:a100:4"),
        ("+launch.slurm.sbatch.array=1", "launch.slurm.sbatch.array=1"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(typed, setting, fake_slurm, refused):
    submitted = fake_slurm()
    assert refused(*FAR, typed).startswith(setting)
    assert not list(submitted.iterdir())
