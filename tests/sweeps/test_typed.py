"""A text setting has the text that was typed, as one value, in a list and as an axis."""

from __future__ import annotations

import json
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hypothesis import given
from hypothesis import strategies as st

from mor.config import ConfigError, from_dict
from sweeps.config import SlurmConfig
from sweeps.typed import FLAGS, as_typed, quoted_form, text_settings

TRAPS = [
    "2026_11_25",
    "1.10",
    "1e3",
    "null",
    "true",
    "2024_05",
    "7e23412",
    "inf",
    "nan",
    "-0",
    "1_0",
]
# what Hydra's grammar takes without quotes, none of its syntax
PLAIN = st.text("abcdefxnul0123456789_.+-/:%@?|*", min_size=1, max_size=12)
TEXTS = st.sampled_from(TRAPS) | PLAIN
REQUIRED = sorted(name for name, optional in text_settings().items() if not optional)


def parse(line: str) -> Override:
    [typed] = as_typed([line])
    return OverridesParser.create().parse_override(typed)


def plain(value: object) -> object:
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.text if isinstance(value, QuotedString) else value


def test_every_kind_of_text_setting_is_known():
    known = text_settings()
    for name in ("study.name", "data.revision", "launch.slurm.account", "runs_dir", "data.paths"):
        assert name in known
    assert known["launch.slurm.account"]
    assert not known["study.name"]
    for name in ("budget", "runtime.micro_batch", "launch.slurm.nodes", "train.lr", "seed"):
        assert name not in known


@given(st.sampled_from(REQUIRED), TEXTS)
def test_one_value_is_the_text_typed(name, text):
    assert plain(parse(f"{name}={text}").value()) == text


@given(TEXTS, TEXTS)
def test_lists_and_axes_are_the_texts_typed(first, second):
    assert plain(parse(f"data.paths=[{first},{second}]").value()) == [first, second]
    for axis in (f"{first},{second}", f"choice({first},{second})"):
        got = list(parse(f"data.text_field={axis}").sweep_iterator())
        assert [plain(value) for value in got] == [first, second]


@given(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\\"), min_size=1))
def test_the_quoted_form_that_is_shown_can_be_typed(text):
    for key, wanted in (("runs_dir", text), ("data.paths", [text])):
        value = text if isinstance(wanted, str) else f"[{text}]"
        if isinstance(wanted, list) and ("," in text or text.endswith("]")):
            continue  # two elements, or the end of the list
        if isinstance(wanted, str) and text.startswith("["):
            continue
        [typed] = shlex.split(quoted_form(f"{key}={value}") or "")
        assert plain(parse(typed).value()) == wanted


@pytest.mark.parametrize("text", ["null", "NULL"])
def test_null_unsets_what_may_be_unset(text):
    assert parse(f"launch.slurm.account={text}").value() is None
    assert plain(parse(f"launch.slurm.account='{text}'").value()) == text
    for value, read in (("true", True), ("false", False), ("null", None), ("2024_05", "2024_05")):
        assert plain(parse(f"+{FLAGS}job_name={value}").value()) == read


@pytest.mark.parametrize("line", ["budget=1e9,2e9", "seed=3", "model.capacity=[1,0.5]", "-m", "~x"])
def test_numbers_stay_numbers(line):
    assert as_typed([line]) == [line]


@pytest.mark.parametrize("value", [202405, 1.1, float("inf"), True, None])
def test_a_text_that_yaml_made_something_else_of_is_refused(value):
    with pytest.raises(ConfigError, match="quotes"):
        from_dict(SlurmConfig, {"setup": [value]})


def test_a_study_has_the_name_typed(sweep, tmp_path):
    file = tmp_path / "plan.json"
    given_ = ["study.name=2026_11_25", "data.name=7e23412", f"launch.plan_file={file}"]
    ended = sweep("-m", "study=quick", "size=9k", "launch=plan", *given_)
    assert ended.returncode == 0, ended.stderr
    plan = json.loads(file.read_text())
    assert plan["study"] == "2026_11_25"


@pytest.mark.parametrize("path", ["/x/a=b", "/x/a#b", "/x/it's", "/x/a(b", "/x/a,b"])
def test_a_path_that_hydra_cannot_read_is_shown_in_quotes(path, sweep, refused, tmp_path):
    said = refused("-m", "study=quick", "size=9k", "launch=plan", f"runs_dir={path}")
    [typed] = shlex.split(said.partition("type ")[2])
    ended = sweep("-m", "study=quick", "size=9k", "launch=plan", typed)
    assert ended.returncode == 0, ended.stderr
