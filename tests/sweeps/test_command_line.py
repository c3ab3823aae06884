"""Commands that we print can be pasted: whatever the path, shell and Hydra read it back."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mor.__main__ import app
from mor.command_line import setting
from mor.model.exchange import save
from sweeps.typed import as_typed, quoted_form
from tests.mor.model.variants import ALL, build

TEXT = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), min_size=1
)


def read(typed: str) -> object:
    """What Hydra takes from one word of a shell."""
    [word] = shlex.split(typed)
    [argument] = as_typed([word])
    return OverridesParser.create().parse_override(argument).value()


@settings(deadline=None, max_examples=300)
@given(text=TEXT)
@example("/a/b c")
@example("it's")
@example("~/x=1,(y)#z'")
@example("a\"b'c")
@example("$HOME `ls` !x")
def test_any_text_is_read_back(text: str) -> None:
    if "\\" in text:
        return  # a backslash in front of a quote means the quote to Hydra
    assert read(setting("train.init_from", text)) == text


@pytest.mark.parametrize("text", ["/plain/path-1.0", "a=b", "1,2", "it's", "x y", "#1", "(a)"])
def test_a_real_shell_gives_it_on(text: str) -> None:
    out = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {setting('data.name', text)}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (
        OverridesParser.create().parse_override(as_typed([out.stdout.strip()])[0]).value() == text
    )


def test_import_llama_prints_a_command_that_names_its_folders(tmp_path: Path) -> None:
    folder, out = tmp_path / "tiny", tmp_path / "out, it's (v=1) #2"
    save(build(ALL["vanilla"]), folder)
    (folder / "tokenizer.json").write_text("{}")
    result = CliRunner().invoke(app, ["import-llama", str(folder), str(out)])
    assert result.exit_code == 0, result.exception
    words = shlex.split(result.output.splitlines()[-1])
    assert words[:2] == ["python", "sweep.py"]
    parsed = OverridesParser.create().parse_overrides(as_typed(words[2:]))
    found = {one.key_or_group: one.value() for one in parsed}
    assert found["train.init_from"] == str(out)
    assert found["data.tokenizer"] == f"{out}/tokenizer.json"
    assert found["size.n_layers"] == build(ALL["vanilla"]).size.n_layers
    shutil.rmtree(out)


FIELD = ["/x/a=b", "/x/a#b", "/x/it's", "/x/a(b", "/x/a(1)", "~/x", "/x/a b", "/x/{a}", "/x/a;b&c"]


@pytest.mark.parametrize("key", ["runs_dir", "data.tokenizer", "train.init_from", "data.paths"])
@pytest.mark.parametrize("path", FIELD)
def test_a_path_is_shown_as_it_has_to_be_typed(key: str, path: str) -> None:
    """Alone, and in a list beside plain and quoted ones."""
    assert read(quoted_form(f"{key}={path}") or "") == path
    if key == "data.paths":
        for beside, value in (("/y/z", "/y/z"), ("'/y,z=1'", "/y,z=1"), ('"/y z"', "/y z")):
            typed = quoted_form(f"{key}=[{path},{beside}]") or ""
            if "it's" in path and beside.startswith("'"):
                continue  # where that list's first name ends, nobody can know
            assert [str(one) for one in map(plain, read(typed))] == [path, value]


def plain(value: object) -> object:
    return getattr(value, "text", value)


@pytest.mark.parametrize("setting_", ["runs_dir", "studies_dir", "launch.plan_file"])
def test_home_in_quotes_is_home(setting_: str, sweep, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    ended = sweep("-m", "study=quick", "size=9k", "launch=plan", f"{setting_}='~/x=1'")
    assert ended.returncode == 0, ended.stderr
    assert not (tmp_path / "~").exists()
    if setting_ == "launch.plan_file":
        assert (tmp_path / "home" / "x=1").is_file()
