"""`python -m mor prepare` reads settings as sweep.py reads them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ledger.errors import UserError
from mor.data.command import run, settings, text_settings
from mor.starter import conf_folder
from sweeps.config import run_config
from sweeps.typed import as_typed
from sweeps.typed import text_settings as of_sweeps

FORMS = [
    "data.paths=corpus/*.txt",
    "data.paths=[corpus/*.txt]",
    "data.paths=[corpus/*.txt,corpus/sub/**/*.jsonl]",
    "data.paths=[a.txt, b.txt]",
    "data.paths=[ a.txt ]",
    "data.paths=['a file, with [brackets].txt',\"b's.txt\"]",
    "data.paths='[corpus/a.txt]'",
    "data.paths=[2024_05,1e3,null]",
    "data.paths=2024_05",
    "data.paths=[]",
    "data.paths=['~/corpus/*.txt.zst']",
    "++data.paths=[a.txt]",
    "data.text_field=1.10",
    "data.name=7e23412",
    "data.separator=null",
    "data.separator='<|end|>'",
    "data.tokens=2e9",
    "data.sharded=true",
]


def in_sweep(arguments: list[str]):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = compose("config", overrides=as_typed(arguments))
    values = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(values, dict)
    return run_config({str(key): value for key, value in values.items()}).data


@pytest.mark.parametrize("form", FORMS)
def test_a_setting_is_read_as_in_sweep(form: str) -> None:
    typed = ["data=files", form]
    found, _ = settings(typed)
    assert found == in_sweep(typed)


def test_lists_are_lists() -> None:
    found, workers = settings(["data=files", "data.paths=[a.txt, 2024_05]", "runtime.workers=3"])
    assert found.paths == ("a.txt", "2024_05")
    assert workers == 3


@pytest.mark.parametrize("form", ["data.paths=[[a.txt,b.txt]]", "data.paths={a:1}"])
def test_what_is_no_list_of_texts_is_refused(form: str) -> None:
    with pytest.raises(UserError, match=r"data\.paths"):
        settings(["data=files", form])


def test_what_needs_quotes_is_told_with_them() -> None:
    with pytest.raises(UserError) as caught:
        settings(["data=files", "data.paths=[a b#.txt,c(.txt]"])
    quoted = shlex.split(str(caught.value).rpartition("type ")[2])
    assert settings(["data=files", *quoted])[0].paths == ("a b#.txt", "c(.txt")


def test_both_know_the_same_texts() -> None:
    data = {name: null for name, null in of_sweeps().items() if name.startswith("data.")}
    assert dict(text_settings().known) == data


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the tests stay as they are."""
    monkeypatch.setattr("mor.data.command.signal.signal", lambda *given: None)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("sharded", ["false", "true"])
def test_every_bad_file_is_named(sharded: str, tmp_path: Path) -> None:
    folder, cache = tmp_path / "corpus", tmp_path / "cache"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i}.txt").write_text(f"text {i} " * 20)
    for name in ("a.bin", "b.txt"):
        (folder / name).write_bytes(b"\0")
    typed = ["data=files", f"data.paths=[{folder}/*]", f"data.cache_dir={cache}"]
    with pytest.raises(UserError) as caught:
        run([*typed, f"data.sharded={sharded}", "runtime.workers=1"], verify=True)
    assert "a.bin (" in str(caught.value)
    assert "b.txt (" in str(caught.value)
    assert not list(cache.glob("files-*"))


@pytest.mark.usefixtures("signals")
def test_what_is_left_out_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"text": f"text {i} " * 20}) for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, '{"text": null}', '{"te']))
    typed = ["data=files", f"data.paths=[{tmp_path}/*.jsonl]", f"data.cache_dir={tmp_path / 'c'}"]
    run([*typed, "data.val_fraction=0.3"], verify=True)
    said = capsys.readouterr().out
    assert "2 of 42 rows left out" in said
    assert "1 null (first: " in said
    assert "1 not JSON (first: " in said
    assert "line 42" in said
