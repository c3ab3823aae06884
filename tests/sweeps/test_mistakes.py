"""Bad input: one sentence that names the setting, its value and the way out; exit code 2."""

from __future__ import annotations

import re

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ledger.damage import write_digest
from mor.config import ConfigError
from sweeps.config import known_settings, sweep_config
from tests.conftest import REPO

QUICK = "study=quick"
CASES = [
    ([QUICK, "model.n_recursion=3"], ["model.n_recursion", "mean model.n_recursions"]),
    ([QUICK, "trian.lr=3"], ["trian.lr", "train.lr"]),
    ([QUICK, "model=morr"], ["model=morr", "mor, mor_token, recursive, vanilla"]),
    ([QUICK, "size.d_model=33"], ["size.d_model=33", "size.d_model=24"]),
    ([QUICK, "model=mor", "model.capacity=[1,1.5,0.5]"], ["capacity", "at most at 1"]),
    ([QUICK, "model=mor", "model.capacity=[0.3,0.6,0.6]"], ["cannot rise"]),
    ([QUICK, "model=mor", "model.n_recursions=9"], ["n_recursions=9", "layers to share"]),
    ([QUICK, "budget=1"], ["budget=1", "less than one step", "set budget="]),
    ([QUICK, "train.lr=fast"], ["train.lr=fast", "a number"]),
    ([QUICK, "train.lr=0"], ["train.lr=0", "above 0"]),
    ([QUICK, "tokens=10B"], ["tokens=10B", "type tokens=1e10"]),
    ([QUICK, "budget=3e9FLOPs"], ["budget=3e9FLOPs", "type budget=3e9"]),
    ([QUICK, "budget=-3e9"], ["budget=-3e9", "above 0"]),
    ([QUICK, "seed=one"], ["seed=one", "type seed=0"]),
    ([QUICK, "seed=-1"], ["seed=-1", "0 or more"]),
    ([QUICK, "model=mor", "model.router.aux_coeff=-1"], ["model.router.aux_coeff=-1", "0 or more"]),
    ([QUICK, "train.warmup_steps=-5"], ["train.warmup_steps=-5", "0 or more"]),
    ([QUICK, "tokens=1e6", "train.seq_len=0"], ["train.seq_len=0", "above 0"]),
    (["-m", QUICK, "launch.max_hours=-1"], ["launch.max_hours=-1", "0 or more"]),
    ([QUICK, "cluster.mfu=40", "launch=plan"], ["cluster.mfu=40", "cluster.mfu=0.4"]),
    ([QUICK, "data=files", "data.paths=[nowhere/*.txt]"], ["data.paths", "nowhere"]),
    ([QUICK, "runtime.device=tpu"], ["runtime.device=tpu", "auto, cpu, cuda"]),
    (["-m", QUICK, "size="], ["size=", "choose one of"]),
    ([QUICK, "+nothing=1"], ["nothing=1", "--help"]),
    ([QUICK, "cluster.gpu=abacus", "launch=plan"], ["cluster.gpu=abacus", "h100"]),
    ([QUICK, "model=vanilla,mor"], ["model", "add -m"]),
    ([QUICK, "launch.plan_file=/proc/nowhere/plan.json"], ["launch.plan_file", "another path"]),
    ([QUICK, "runs_dir=/proc/nowhere"], ["runs_dir", "cannot be written"]),
    (["-m", QUICK, "size=9k", "studies_dir=/proc/nowhere"], ["studies_dir", "cannot be written"]),
    ([QUICK, "runtime.log_steps=0"], ["runtime.log_steps=0", "above 0"]),
    ([QUICK, "runtime.compile=yep"], ["runtime.compile=yep", "auto"]),
    ([QUICK, "data.tokenizer=train", "launch=plan"], ["data.vocab_size=256", "4096"]),
    (["-m", QUICK, "model=[mor,vanilla]", "launch=plan"], ["model", "type model=mor,vanilla"]),
    ([QUICK, "train.warmup_steps=100000"], ["train.warmup_steps=100000"]),
    (["-m", QUICK, "launch=plan,local"], ["launch=plan,local", "one value for a whole study"]),
    (["-m", QUICK, "model.nope=1,2"], ["model.nope", "no such setting"]),
    ([QUICK, "model=looped", "model.injectio=add"], ["model.injectio", "model.injection"]),
    ([QUICK, "model=mor", "model.injection=add"], ["model.injection", "architecture=looped"]),
    ([QUICK, "modle=mor"], ["modle", "mean model?"]),
    ([QUICK, "budget"], ["budget", "key=value"]),
    ([QUICK, "model=mor", "model.capacity=[1"], ["model.capacity=[1", "'key=[a,b]'"]),
    (
        [QUICK, "launch.slurm.per_size.1.7b.mem_gb=3"],
        ["launch.slurm.per_size.1.7b.mem_gb=3", "'launch.slurm.per_size={1.7b: {mem_gb: 3}}'"],
    ),
    (
        ["-m", QUICK, "++launch.slurm.per_size={9z:{mem_gb:3}}", "launch=plan"],
        ["launch.slurm.per_size.9z=", "launch.slurm.per_size.9k"],
    ),
    ([QUICK, "launch.slurm.time=5"], ["slurm.time:", "launch.slurm.timeout_min=", "minutes"]),
    ([QUICK, "+launch.slurm.time=5"], ["slurm.time=5:", "launch.slurm.timeout_min=", "minutes"]),
    (
        [QUICK, "launch.slurm.data.time=5"],
        ["data.time:", "launch.slurm.data.timeout_min=", "minut"],
    ),
    (
        [QUICK, "launch.slurm.data={partition: a, cpus: 2, time: 5}"],
        ["launch.slurm.data.time:", "launch.slurm.data.timeout_min=", "minutes"],
    ),
    ([QUICK, "launch.slurm.cpus=5"], ["launch.slurm.cpus_per_task="]),
    ([QUICK, "launch.slurm.mem=5"], ["launch.slurm.mem_gb="]),
    (["-m", QUICK, "--seeds=3"], ["--seeds=3", "no such flag"]),
    (["-m", "--cfg", "job", QUICK], ["-m and --cfg", "leave -m out"]),
    (["--info", "config", QUICK, "-m"], ["-m and --info", "leave -m out"]),
    (["--info", QUICK], ["--info", "'study=quick'"]),
    (["--resolve", QUICK], ["--resolve", "--cfg job --resolve"]),
    (["--shell-completion"], ["--shell-completion", "install=bash"]),
    ([QUICK, "seed=99999999999999999999999"], ["seed=99999999999999999999999"]),
    (["-m", QUICK, "seed=18446744073709551616", "launch=plan"], ["seed=18446744073709551616"]),
    (["-m", QUICK, f"study.name={'a' * 201}", "launch=plan"], ["study.name=aaa"]),
    (["-m", QUICK, "~launch"], ["launch=: missing"]),
    ([QUICK, "~study.name"], ["study.name=: missing"]),
    (["-m", "budget=5e18", "launch=local"], ["launch.max_hours=24", "study=quick for"]),
]


@pytest.mark.parametrize(("arguments", "words"), CASES, ids=lambda value: str(value[-1])[:40])
def test_a_mistake_is_one_sentence(arguments, words, refused):
    sentence = refused(*arguments)
    for word in words:
        assert word in sentence, sentence


def test_a_column_that_is_not_there_is_missed_before_anything_is_submitted(refused, tmp_path):
    (tmp_path / "own.jsonl").write_text('{"body": "a text"}\n')
    paths = [QUICK, "data=files", f"data.paths=[{tmp_path}/own.jsonl]"]
    for given in (paths, ["-m", *paths, "size=9k"], ["-m", *paths, "size=9k", "launch=plan"]):
        sentence = refused(*given)
        assert "data.text_field=text" in sentence
        assert "body" in sentence
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own.jsonl", '{"text": "a"}\n{"text": 3}\n'),
        ("own.yaml", "task: own\na: b: c\n"),
    ],
)
def test_a_bad_line_of_a_task_file_is_named_before_anything_is_written(
    name, text, refused, tmp_path
):
    (tmp_path / name).write_text(text)
    study = [QUICK, "size=9k", "model=vanilla", "budget=1e9", f"study.evaluate=[corpus,{name}]"]
    for given in (["-m", *study, "launch=plan"], ["-m", *study], study):
        sentence = refused(*given)
        assert sentence.startswith("study.evaluate=")
        assert f"{name}: line 2" in sentence
    assert [path.name for path in tmp_path.iterdir()] == [name]


OWN = {
    "size/bad.yaml": ("name: bad\n d_model: : 4\n", ["size=bad"], ["bad.yaml, line 2"]),
    "cluster/own.yaml": (
        "gpu: h100\nmfu: 0.4\n",
        ["-m", "cluster=own", "cluster.node_gpus=4", "launch=plan"],
        ["cluster.node_gpus: ", "type ++cluster.node_gpus="],
    ),
    "study/own.yaml": (
        "# @package _global_\ndefaults: [quick]\nstudy: {name: own, axes: {budget: '1e9,2e9'}}\n",
        ["-m", "study=own", "launch=plan"],
        ["study.axes.budget=1e9,2e9", "[1e9,2e9]"],
    ),
}


OWN_STUDIES = {
    "study: 3": "study=3",
    "study: null": "study=None",
    "study: {axes: {seed: [1]}}": "study.name=: missing",
    "study: {name: own, scale: 3}": "study.scale=3",
    "study: {name: own, scale: [a]}": "study.scale=['a']",
    "launch: 3": "launch=3",
    "launch: {slurm: null}": "launch.slurm=None",
    "cluster: null": "cluster=None",
}


@pytest.mark.parametrize("file", sorted((REPO / "conf" / "cluster").glob("*.yaml")))
def test_every_setting_around_a_run_can_be_typed(file):
    groups = ("launch", "cluster")
    names = [name for name in known_settings() if name.split(".")[0] in groups]
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
        composed = compose("config", [f"cluster={file.stem}", *(f"{name}=null" for name in names)])
    assert all(OmegaConf.select(composed, name) is None for name in names)


@pytest.mark.parametrize(
    "name", ["study", "study.name", "launch", "cluster", "runs_dir", "studies_dir"]
)
def test_a_setting_that_was_left_out_is_named(name):
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
        values = OmegaConf.to_container(compose("config", ["study=quick"]))
    group, _, key = name.partition(".")
    del (values[group] if key else values)[key or group]
    with pytest.raises(ConfigError) as refused:
        sweep_config(values)
    assert (refused.value.setting, refused.value.problem) == (name, "missing")


@pytest.mark.parametrize("text", OWN_STUDIES)
def test_a_study_of_ones_own_has_its_settings_in_groups(text, tmp_path):
    file = tmp_path / "study" / "own.yaml"
    file.parent.mkdir()
    file.write_text(f"# @package _global_\n{text}\n")
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
        composed = compose("config", ["study=own", f"hydra.searchpath=[file://{tmp_path}]"])
    with pytest.raises(ConfigError) as refused:
        sweep_config(OmegaConf.to_container(composed))
    assert str(refused.value).startswith(OWN_STUDIES[text])


@pytest.mark.parametrize("name", OWN)
def test_a_mistake_in_a_file_of_ones_own_is_one_sentence(name, refused, tmp_path):
    text, arguments, words = OWN[name]
    file = tmp_path / "conf" / name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    sentence = refused("--config-dir", str(tmp_path / "conf"), *arguments)
    assert all(word in sentence for word in words), sentence


def test_one_value_is_an_axis_of_one(sweep, tmp_path):
    file = tmp_path / "conf" / "study" / "own.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(OWN["study/own.yaml"][0].replace("'1e9,2e9'", "1e9, model: vanilla, size: 9k"))
    ended = sweep("--config-dir", str(tmp_path / "conf"), "-m", "study=own", "launch=plan")
    assert ended.returncode == 0, ended.stderr
    assert "vanilla-9k-1e9-" in ended.stdout


def test_the_hours_to_type_are_enough(refused, sweep):
    study = ["-m", QUICK, "size=9k", "model=vanilla", "budget=1e9"]
    sentence = refused(*study, "launch.max_hours=0")
    assert QUICK not in sentence  # it is that already
    [_, enough] = re.findall(r"launch\.max_hours=(\S+)", sentence)
    ended = sweep(*study, f"launch.max_hours={enough}")
    assert ended.returncode == 0, ended.stderr


def test_a_plan_that_would_be_refused_says_so(sweep, tmp_path):
    plan = tmp_path / "plans" / "plan.json"
    ended = sweep("-m", QUICK, "launch=plan", "launch.max_gpu_hours=0", f"launch.plan_file={plan}")
    assert ended.returncode == 0, ended.stderr
    assert "launch.max_gpu_hours=0" in ended.stdout
    assert str(plan) in ended.stdout


def test_a_gpu_that_is_not_there_is_missed_before_anything_starts(refused, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for given in ([QUICK], ["-m", QUICK, "size=9k"]):
        assert "runtime.device=cuda: torch sees no GPU here" in refused(
            *given, "runtime.device=cuda"
        )
    assert not list(tmp_path.glob("runs/*/log.txt"))


def test_settings_may_stand_on_both_sides_of_m_and_groups_may_be_globbed(sweep):
    ended = sweep("size=9k", QUICK, "-m", "model=glob(mor*)", "budget=3e10", "launch=plan")
    assert ended.returncode == 0, ended.stderr
    assert "2 runs" in ended.stdout
    assert "mor_token-9k" in ended.stdout


def test_an_empty_corpus_is_named(refused, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    sentence = refused("study=quick", "data=files", f"data.paths=[{tmp_path / 'empty.txt'}]")
    assert "data.paths" in sentence


def test_a_cache_that_cannot_be_written_is_said_before_anything_is_launched(
    refused, sweep, tmp_path, toy
):
    run = [*toy, "model=vanilla", "budget=3e8"]
    for given in (run, ["-m", *run, "launch=local"]):
        sentence = refused(*given, "data.cache_dir=/proc/nowhere")
        assert sentence.startswith("data.cache_dir=/proc/nowhere: cannot be written")
    assert not list(tmp_path.glob("runs/*"))
    assert not list(tmp_path.glob("studies/*"))
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    assert sweep(*run, cache).returncode == 0
    (tmp_path / "cache" / ".probe").mkdir()  # nothing can be tried there now
    ended = sweep("-m", *run, "seed=1", cache, "launch=local")
    assert ended.returncode == 0, ended.stderr + ended.stdout  # what is prepared is only read
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"a text of {name}\n" * 9999)
    assert "data.cache_dir" in refused(*run, "data=files", "data.paths=[a.txt,b.txt]", cache)


def test_a_ledger_of_another_version_is_not_touched(refused, sweep, tmp_path, toy):
    ended = sweep(*toy, "model=vanilla", "budget=3e8")
    assert ended.returncode == 0, ended.stderr
    [result] = (tmp_path / "runs").glob("*/result.json")
    newer = result.read_text().replace('"schema": 1', '"schema": 99')
    result.write_text(newer)
    write_digest(result, result.with_suffix(".digest"))  # as a newer version would
    sentence = refused(*toy, "model=vanilla", "budget=3e8")
    assert "schema 99" in sentence
    assert "runs_dir=" in sentence
    assert result.read_text() == newer


@pytest.mark.parametrize("name", ["../escape", "a/b", "..", "-x", "a b"])
def test_a_study_stays_in_its_folder(name, refused, tmp_path):
    sentence = refused("-m", "study=quick", f"study.name='{name}'", "launch=plan")
    assert sentence.startswith(f"study.name={name}")
    assert not list(tmp_path.glob("**/plan.json"))


def test_online_tracking_without_a_key_is_said_before_training(refused, tmp_path, monkeypatch, toy):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for multirun in ([], ["-m", "launch=local"]):
        sentence = refused(*multirun, *toy, "model=vanilla", "budget=3e8", "runtime.wandb=online")
        assert sentence.startswith("runtime.wandb=online: there is no API key")
        assert not list(tmp_path.glob("runs/*/metrics.jsonl"))


def test_help_teaches(sweep):
    ended = sweep("--help")
    assert ended.returncode == 0
    for word in ("study=quick", "-m", "model.n_recursions", "launch=plan", "vanilla"):
        assert word in ended.stdout, ended.stdout
