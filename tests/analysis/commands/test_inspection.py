"""Figures of an inspection; `tests/mor/evaluate/test_inspection.py` draws real ones."""

import json

import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.commands.inspection import as_runs
from analysis.figures import style
from tests.analysis.report.conftest import routing_of


def content(**changes):
    each = {
        "checkpoint": "final",
        "step": 3,
        "loss": {"val_nll_causal": 2.1},
        "routing": routing_of(),
        "kv_statistics": None,
        "nll_by_depth": None,
    }
    return {
        "schema": 1,
        "source": "mor-1",
        "settings": {"model": {"architecture": "mor", "n_recursions": 3,
                               "router": {"type": "expert"}}, "size": {"name": "9k"}},
        "checkpoints": [each],
        **changes,
    }  # fmt: skip


def test_what_was_measured_is_drawn(tmp_path):
    file = tmp_path / "text.json"
    file.write_text(json.dumps(content()))
    ended = CliRunner().invoke(app, ["inspection", str(file), "--out", str(tmp_path / "f")])
    assert ended.exit_code == 0, ended.output
    drawn = {path.stem for path in (tmp_path / "f").glob("*.png")}
    assert drawn == {"text_scores", "text_loss_by_depth", "text_token_depth"}


def test_a_figure_names_its_run_and_a_long_name_by_its_end(tmp_path):
    name = "runs/" + "a" * 80 + "/$mor$-57k"
    norms, cosines = [1.0, 2.0], [[1.0, 0.5], [0.5, 1.0]]
    kv = {"key_norm": norms, "value_norm": norms, "key_cosine": cosines, "value_cosine": cosines}
    (one,) = content()["checkpoints"]
    file = tmp_path / "text.json"
    given = content(source=name, checkpoints=[{**one, "kv_statistics": kv}])
    file.write_text(json.dumps(given))
    ended = CliRunner().invoke(app, ["inspection", str(file), "--out", str(tmp_path / "f")])
    assert ended.exit_code == 0, ended.output
    for stem in ("text_scores", "text_token_depth", "text_keys_values"):
        drawn = (tmp_path / "f" / f"{stem}.svg").read_text()
        assert f">…{name[-style.NAME_LENGTH + 1 :]}<" in drawn


def test_a_router_without_scores_has_no_figure_of_them(tmp_path):
    given = content()
    histogram = given["checkpoints"][0]["routing"]["score_histogram"]
    for kind in ("selected", "unselected"):
        histogram[kind] = [[0] * len(counts) for counts in histogram[kind]]
    file = tmp_path / "text.json"
    file.write_text(json.dumps(given))
    ended = CliRunner().invoke(app, ["inspection", str(file), "--out", str(tmp_path / "f")])
    assert ended.exit_code == 0, ended.output
    drawn = {path.stem for path in (tmp_path / "f").glob("*.png")}
    assert drawn == {"text_loss_by_depth", "text_token_depth"}


def test_checkpoints_are_lines_of_their_own():
    one = content()["checkpoints"][0]
    several = content(checkpoints=[{**one, "checkpoint": f"step-{i}"} for i in range(3)])
    assert [run.result.model for run in as_runs(several)] == ["step-0", "step-1", "step-2"]
    assert [run.result.model for run in as_runs(content())] == ["mor"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}'])
def test_a_file_that_is_none_is_refused(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    ended = CliRunner().invoke(app, ["inspection", str(file), "--out", str(tmp_path / "f")])
    assert ended.exit_code == 2
    assert str(file) in ended.output
    assert not (tmp_path / "f").exists()
