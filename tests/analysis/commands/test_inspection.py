"""Figures of an inspection; `tests/mor/evaluate/test_inspection.py` draws real ones."""

import json

import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.commands.inspection import as_runs
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
