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
from sweeps.typed import as_typed
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
    if text.strip() != text or "\\" in text or ("'" in text and '"' in text):
        return  # Hydra itself cannot take some of these
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
