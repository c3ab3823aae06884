"""`python -m mor generate`: what it prints is what the model says; what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ledger.folder import RunFolder
from mor.__main__ import main
from mor.config import Config
from mor.data.tokenizer import ByteTokenizer
from mor.export import context_of
from mor.inference.command import Session, Trained
from mor.inference.confidence import Exits
from mor.inference.decode import generate
from mor.inference.engine import Engine
from mor.inference.request import Sampling, Settings
from mor.train.initial import trained_model
from mor.train.run import Hooks, train_run
from tests.conftest import toy_runs
from tests.mor.model.variants import SIZE
from tests.mor.model.variants import expert as expert_model

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`python -m mor` with these arguments: exit code, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mor", *map(str, arguments)])
        try:
            code = main()
        except SystemExit as ended:  # typer's own
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs of six steps, by architecture; sequences of 32 bytes."""
    from mor.config import ModelConfig, RouterConfig, SizeConfig

    root = tmp_path_factory.mktemp("runs")
    tiny = SizeConfig("tiny", n_layers=5, d_model=16, n_heads=2, n_kv_heads=1, d_head=8, d_ff=40)
    models = {
        "vanilla": ModelConfig("vanilla"),
        "mor": ModelConfig("mor", "mor", 3, router=RouterConfig("expert")),
        "recursive": ModelConfig("recursive", "recursive", 3),
    }
    make: Callable[..., Config] = toy_runs(root, models, tiny)
    for name in models:
        train_run(make(name, steps=6), RunFolder(root / name), None, Hooks())
    return {name: root / name for name in models}


def wanted(folder: Path, text: str, n_new: int) -> str:
    """The reference's greedy continuation, up to the separator."""
    prompt = list(text.encode())
    new = generate(trained_model(folder), torch.tensor([prompt]), n_new)[0, len(prompt) :].tolist()
    return ByteTokenizer().decode(new[: new.index(255)] if 255 in new else new)


@pytest.mark.parametrize("name", ["vanilla", "mor"])
def test_a_run_and_its_export_say_what_the_reference_says(
    name: str, folders: dict[str, Path], mor: Run, tmp_path: Path
) -> None:
    said = "".join(f"{p}{wanted(folders[name], p, 9)}\n" for p in ("scaling", "é law"))
    asked = ("--prompt", "scaling", "--prompt", "é law", "--max-new", 9)
    assert mor("generate", folders[name], *asked)[:2] == (0, said)
    assert mor("export", folders[name], tmp_path / "out", "hf")[0] == 0
    assert mor("generate", tmp_path / "out", *asked)[:2] == (0, said)


def test_depths_are_shown_for_each_token(folders: dict[str, Path], mor: Run) -> None:
    asked = ("generate", folders["mor"], "--prompt", "law é", "--max-new", 4, "--show-depth")
    for most, extra in ((3, ()), (1, ("--max-recursions", 1))):
        code, out, _ = mor(*asked, *extra)
        assert code == 0
        *_, last = lines = out.splitlines()
        table = [line.split()[0] for line in lines if line.endswith("'")]
        assert len(table) == len("law é".encode()) + 4
        assert table[-1] == "-"  # the newest token has not been fed back
        depths = [int(depth) for depth in table[:-1]]
        assert set(depths) <= set(range(1, most + 1))
        assert float(last.split()[-1]) == pytest.approx(sum(depths) / len(depths), abs=0.006)


def test_a_continuation_fills_the_context_where_nobody_says_how_long(
    folders: dict[str, Path],
) -> None:
    model = trained_model(folders["mor"])
    session = Session(Trained(model, ByteTokenizer(), 32), ["a" * 20], Sampling(), None, None, None)
    done = session.finish(0)
    assert len(done.tokens) == 12 or done.reason == "stop"


def test_samples_repeat_under_a_seed(folders: dict[str, Path], mor: Run) -> None:
    asked = ("generate", folders["mor"], "--prompt", "law", "--temperature", 1.5, "--top-k", 50)
    said = {seed: mor(*asked, "--seed", seed)[1] for seed in range(4)}
    assert {seed: mor(*asked, "--seed", seed)[1] for seed in range(4)} == said
    assert len(set(said.values())) > 1


def test_a_token_that_only_the_model_has_is_shown(folders: dict[str, Path]) -> None:
    """A vocabulary padded beyond the tokenizer's entries."""
    from mor.model.transformer import Transformer

    model = Transformer(expert_model(), SIZE, 300, seed=1).eval()
    with torch.no_grad():
        model.embed.weight[256:] *= 20
    session = Session(
        Trained(model, ByteTokenizer(), 32), ["a"], Sampling(temperature=1.0), 8, None, None
    )
    assert "\ufffd" in "".join(session.text(0))
    assert max(session.finish(0).tokens) >= 256


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (("--prompt", ""), "--prompt:"),
        (("--prompt", "x" * 32), "context"),
        (("--prompt", "x" * 20, "--max-new", 13), "--max-new 13 "),
        (("--prompt", "\udcff"), "prompt"),
        (("--prompt", "fine", "--prompt", ""), "prompt"),
        (("--prompt", "x", "--pool-tokens", 8), "--pool-tokens 8:"),
        (("--prompt", "x", "--pool-tokens", 10**12), "--pool-tokens 1000000000000:"),
        (("--prompt", "x", "--pool-tokens", 16, "--max-new", 20), "--pool-tokens:"),
        (("--prompt", "x", "--max-recursions", 4), "--max-recursions 4:"),
        (("--prompt", "x", "--max-new", 0), "--max-new 0:"),
        (("--prompt", "x", "--temperature", -1), "--temperature -1.0:"),
        (("--prompt", "x", "--top-p", 0.5), "--temperature 0.0:"),
        (("--prompt", "x", "--temperature", 1, "--top-k", 0), "--top-k 0:"),
    ],
)
def test_bad_input_is_one_sentence(
    changes: tuple, named: str, folders: dict[str, Path], mor: Run
) -> None:
    code, out, err = mor("generate", folders["mor"], *changes)
    assert (code, out) == (2, "")
    assert named in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("rule", ["kl", "entropy"])
def test_tokens_leave_by_the_rule_that_is_typed(
    rule: str, folders: dict[str, Path], mor: Run
) -> None:
    """Those of the engine under the same rule: at 0 all loops, at infinity's side one, and a
    threshold between in between."""
    asked = ("generate", folders["recursive"], "--prompt", "scaling", "--max-new", 8)
    model = trained_model(folders["recursive"])
    prompt = list(b"scaling")
    sampling = Sampling(max_new=8, stop=(255,))
    for threshold in (0.0, 1e-3, 1e9):
        engine = Engine(model, Settings(context=32), exits=Exits(rule, threshold))
        (found,) = engine.generate([prompt], sampling)
        rules = ("--exit-rule", rule, "--exit-threshold", threshold)
        code, out, _ = mor(*asked, *rules, "--show-depth")
        assert code == 0
        *_, last = out.splitlines()
        table = [line.split()[0] for line in out.splitlines() if line.endswith("'")]
        assert [int(depth) for depth in table[:-1]] == found.depths
        assert float(last.split()[-1]) == pytest.approx(np.mean(found.depths), abs=0.006)
        if threshold != 1e-3:
            assert set(found.depths) == {1 if threshold else 3}


@pytest.mark.parametrize(
    ("name", "given", "named"),
    [
        ("recursive", ("--exit-rule", "kl"), "--exit-threshold"),
        ("recursive", ("--exit-threshold", 0.5), "--exit-rule"),
        ("recursive", ("--exit-rule", "margin", "--exit-threshold", 1), "--exit-rule margin:"),
        ("recursive", ("--exit-rule", "kl", "--exit-threshold", -1), "--exit-threshold -1.0:"),
        ("recursive", ("--exit-rule", "kl", "--exit-threshold", "nan"), "--exit-threshold nan:"),
        ("recursive", ("--exit-rule", "kl", "--exit-threshold", "x"), "--exit-threshold"),
        ("mor", ("--exit-rule", "kl", "--exit-threshold", 1), "confidence"),
        ("vanilla", ("--exit-rule", "kl", "--exit-threshold", 1), "confidence"),
    ],
)
def test_a_rule_that_cannot_be_had_is_one_sentence(
    name: str, given: tuple, named: str, folders: dict[str, Path], mor: Run
) -> None:
    code, out, err = mor("generate", folders[name], "--prompt", "x", *given)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert named in err


def test_weights_go_into_a_new_folder(folders: dict[str, Path], mor: Run, tmp_path: Path) -> None:
    used = tmp_path / "README.md"
    used.write_text("mine")
    for out, said in ((used, "is a file"), (tmp_path, "is not empty")):
        code, _, err = mor("export", folders["mor"], out)
        assert code == 2
        assert said in err
    assert used.read_text() == "mine"


@pytest.mark.parametrize("form", [(), ("hf",)])
def test_a_full_disk_and_the_folder_one_is_in_are_one_sentence(
    form: tuple, folders: dict[str, Path], mor: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, _, err = mor("export", folders["mor"].absolute(), ".", *form)
    assert (code, len(err.splitlines())) == (2, 1)

    def full(*_: object, **__: object) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    code, _, err = mor("export", folders["mor"].absolute(), tmp_path / "out", *form)
    assert (code, len(err.splitlines())) == (2, 1)
    assert str(tmp_path / "out") in err
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize(
    "changes",
    [
        {"model": 1}, {"model": None}, {"size": []}, {"vocab_size": "a"}, {"vocab_size": -1},
        {"vocab_size": True}, {"seed": "x"}, {"seed": -1}, {"separator": 1e3}, {"separator": 999},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_configuration_is_one_sentence(
    changes: dict, folders: dict[str, Path], mor: Run, tmp_path: Path
) -> None:
    assert mor("export", folders["mor"], tmp_path / "out", "hf")[0] == 0
    (tmp_path / "out" / "digests.json").unlink()
    file = tmp_path / "out" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    code, out, err = mor("generate", file.parent, "--prompt", "x")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert next(iter(changes)) in err


def test_a_run_without_its_configuration_and_a_mor_for_a_llama_are_one_sentence(
    folders: dict[str, Path], mor: Run, tmp_path: Path
) -> None:
    run = tmp_path / folders["mor"].name
    shutil.copytree(folders["mor"], run)
    (run / "config.yaml").unlink()
    asked = [("generate", run, "--prompt", "x"), ("export", run, tmp_path / "o", "hf")]
    assert mor("export", folders["mor"], tmp_path / "hf", "hf")[0] == 0
    for command in [*asked, ("inspect", run), ("import-llama", tmp_path / "hf", tmp_path / "il")]:
        code, out, err = mor(*command)
        assert (code, out, len(err.splitlines())) == (2, "", 1), command
    assert not (tmp_path / "il").exists()


def test_folders_without_a_model_or_a_tokenizer_are_refused(
    folders: dict[str, Path], mor: Run, tmp_path: Path
) -> None:
    assert mor("export", folders["mor"], tmp_path / "own")[0] == 0
    weights = tmp_path / "torn" / "model.safetensors"
    assert mor("export", folders["mor"], weights.parent, "hf")[0] == 0
    weights.write_bytes(weights.read_bytes()[:-100])
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "own", weights.parent):
        code, out, err = mor("generate", folder, "--prompt", "x")
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert str(folder) in err


@pytest.mark.parametrize("name", ["vanilla", "mor"])
@pytest.mark.parametrize("context", ["x", [1], True, 0, -1, 32.0])
def test_a_context_that_is_no_number_of_tokens_is_one_sentence(
    name: str, context: object, folders: dict[str, Path], mor: Run, tmp_path: Path
) -> None:
    assert mor("export", folders[name], tmp_path / "hf", "hf")[0] == 0
    file = tmp_path / "hf" / "config.json"
    values = json.loads(file.read_text())
    assert values["max_position_embeddings"] == 32
    file.write_text(json.dumps({**values, "max_position_embeddings": context}))
    (tmp_path / "hf" / "digests.json").unlink()
    text = tmp_path / "mine.txt"
    text.write_text("scaling law")
    for arguments in (
        ("generate", tmp_path / "hf", "--prompt", "x"),
        ("inspect", tmp_path / "hf", "--text", text, "--no-draw", "--out", tmp_path / "out"),
        ("export", tmp_path / "hf", tmp_path / "out", "hf"),
    ):
        code, out, err = mor(*arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert f"max_position_embeddings={context}" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["vanilla", "mor"])
def test_a_context_that_is_not_said_is_none(
    name: str, folders: dict[str, Path], mor: Run, tmp_path: Path
) -> None:
    assert mor("export", folders[name], tmp_path / "hf", "hf")[0] == 0
    file = tmp_path / "hf" / "config.json"
    values = json.loads(file.read_text())
    del values["max_position_embeddings"]
    for said in ({"max_position_embeddings": None}, {}):
        file.write_text(json.dumps({**values, **said}))
        assert context_of(tmp_path / "hf") is None
