"""Digests of exported folders: damage is found, and transformers reads them as before."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import mor.hf  # noqa: F401
from ledger.folder import RunFolder
from mor.__main__ import main
from mor.config import ModelConfig, SizeConfig
from mor.model.digests import DIGESTS
from mor.model.exchange import ExchangeError, load
from mor.train.initial import trained_model
from mor.train.origin import read_origin
from mor.train.run import Hooks, train_run
from tests.conftest import toy_runs

NAMES = ("vanilla", "mor")
READ = ("config.json", "tokenizer.json", "model.safetensors")


def run(*arguments: object) -> int:
    before, sys.argv = sys.argv, ["mor", *map(str, arguments)]
    try:
        return main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory,
    architectures: dict[str, ModelConfig],
    tiny: SizeConfig,
) -> dict[tuple[str, str], Path]:
    """Exports of runs by architecture and form; `run` is the run itself."""
    root = tmp_path_factory.mktemp("digests")
    make = toy_runs(root, architectures, tiny)
    found = {}
    for name in NAMES:
        found[name, "run"] = root / name
        train_run(make(name, steps=4), RunFolder(root / name), None, Hooks())
        for form in ("own", "hf"):
            found[name, form] = root / f"{name}-{form}"
            assert run("export", root / name, found[name, form], form) == 0
    return found


@pytest.fixture
def copy(exported: dict[tuple[str, str], Path], tmp_path: Path):
    def copied(name: str, form: str) -> Path:
        return Path(shutil.copytree(exported[name, form], tmp_path / "copy"))

    return copied


def flip(file: Path, at: float) -> None:
    """One bit of the byte at this share of a file."""
    data = bytearray(file.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["own", "hf"])
def test_every_file_of_an_export_has_its_digest(
    name: str, form: str, exported: dict[tuple[str, str], Path]
) -> None:
    folder = exported[name, form]
    written = json.loads((folder / DIGESTS).read_text())["sha256"]
    assert written.keys() == {path.name for path in folder.iterdir()} - {DIGESTS}


@pytest.mark.parametrize("at", [0.02, 0.6, 1.0])
@pytest.mark.parametrize("file", READ)
@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_found_by_every_command(
    name: str, file: str, at: float, copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(name, "hf")
    flip(folder / file, at)
    text = tmp_path / "mine.txt"
    text.write_text("scaling law")
    for arguments in (
        ("generate", folder, "--prompt", "a"),
        ("inspect", folder, "--text", text, "--no-draw", "--out", tmp_path / "out"),
        ("export", folder, tmp_path / "out", "hf"),
    ):
        assert run(*arguments) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert str(folder / file) in said.err
        assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["own", "hf"])
@pytest.mark.parametrize("name", NAMES)
def test_what_a_run_starts_from_is_compared(name: str, form: str, copy) -> None:
    folder = copy(name, form)
    flip(folder / "model.safetensors", 0.9)
    for read in (read_origin, load, trained_model):
        with pytest.raises(ExchangeError, match=r"model\.safetensors"):
            read(folder)
    (folder / DIGESTS).unlink()  # as of others
    assert load(folder).model.name == name


@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_the_folder_and_ours_finds_the_damage(name: str, copy) -> None:
    folder = copy(name, "hf")
    assert AutoTokenizer.from_pretrained(folder)("law")["input_ids"] == list(b"law")
    tokens = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
        ours = load(folder)(tokens, routing="causal").logits
    torch.testing.assert_close(logits, ours, atol=2e-5, rtol=1e-4)
    again = AutoModelForCausalLM.from_pretrained(folder)
    again.save_pretrained(folder.with_name("again"))  # a folder of transformers' own has none
    assert not (folder.with_name("again") / DIGESTS).exists()
    assert load(folder.with_name("again")).model.name == name
    flip(folder / "model.safetensors", 0.9)
    if name != "vanilla":  # a plain Llama, which none of our code reads
        with pytest.raises(ExchangeError, match=r"model\.safetensors"):
            AutoModelForCausalLM.from_pretrained(folder)


def test_the_fingerprint_of_weights_is_that_of_before(exported) -> None:
    """It is part of the ids of runs that start from them."""
    folder = exported["mor", "hf"]
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).digest()
    assert read_origin(folder)[1] == hashlib.sha256(weights).hexdigest()[:16]


@pytest.mark.parametrize("content", ["{}", '{"sha256": [1]}', '{"files": {"config.json": "x"}}'])
def test_a_file_of_others_by_this_name_is_no_digest(content: str, copy) -> None:
    folder = copy("mor", "hf")
    (folder / DIGESTS).write_text(content)
    assert trained_model(folder)


def test_an_import_has_digests_too(copy, tmp_path: Path) -> None:
    assert run("import-llama", copy("vanilla", "hf"), tmp_path / "in") == 0
    written = json.loads((tmp_path / "in" / DIGESTS).read_text())["sha256"]
    assert written.keys() == {"config.json", "model.safetensors", "tokenizer.json"}
