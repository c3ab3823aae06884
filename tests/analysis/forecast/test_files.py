"""Forecast files and their scores, as the command line writes and reads them."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.commands.forecast import parse_at
from analysis.errors import AnalysisError
from analysis.points.load import load_points
from benchmarks.coverage_isoflop import GRIDS, LAWS, draw
from tests.analysis.forecast.test_predict import TOP

AT = f"budget={TOP:g} model=mor,vanilla"


def run(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def files(tmp_path):
    """Points without their largest budget, and all of them."""
    table = draw(np.random.default_rng(4), LAWS["symmetric"], GRIDS["mid"], 0.002, 0.0)
    table = table.drop(columns="trunk")
    table[table["budget"] < 0.9 * TOP].to_csv(tmp_path / "few.csv", index=False)
    table.to_csv(tmp_path / "all.csv", index=False)
    return tmp_path


def write(files, *more: object):
    ended = run("forecast", files / "few.csv", "--at", AT, "--out", files / "out", "--json",
                "--bootstrap", 100, *more)  # fmt: skip
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def test_json_holds_what_was_promised(files):
    content = write(files, "--level", 0.8)
    assert content["level"] == 0.8
    assert {row["model"] for row in content["predictions"]} == {"mor", "vanilla"}
    for row in content["predictions"]:
        assert row["budget"] == TOP
        assert row["interval"][0] < row["loss"] < row["interval"][1]
        assert row["params_interval"][0] < row["params"] < row["params_interval"][1]
    held = json.loads((files / "out" / content["file"].rpartition("/")[2]).read_text())
    assert held["predictions"] == content["predictions"]
    assert len(held["points"]) == len(load_points(files / "few.csv").table)


def test_points_that_are_no_study_are_written_only_on_request(files):
    ended = run("forecast", files / "few.csv", "--at", AT, "--json", "--bootstrap", 50)
    assert json.loads(ended.stdout)["file"] is None
    assert not (files / "forecasts").exists()


def test_a_forecast_is_scored_when_its_budget_has_run(files):
    file = write(files)["file"]
    content = json.loads(run("score", file, files / "all.csv", "--json").stdout)
    (found,) = content["forecasts"]
    assert all(row["measured"] is not None for row in found["scores"])
    hits = [row["hit"] for row in found["scores"]]
    assert content["calibration"]["number"] == len(hits) == 5
    assert content["calibration"]["hits"] == sum(hits) >= 3
    for row in found["scores"]:
        assert row["hit"] == (row["interval"][0] <= row["measured"] <= row["interval"][1])
        assert row["hit"] == (abs(row["z"]) <= 1.645)  # 90 %
    assert content["warnings"] == []


def test_what_has_not_run_is_pending_and_nothing_is_counted(files):
    file = write(files)["file"]
    content = json.loads(run("score", file, files / "few.csv", "--json").stdout)
    assert content["calibration"]["number"] == 0
    assert all(row["reason"] for row in content["forecasts"][0]["scores"])


def test_what_the_forecast_was_made_from_is_no_hit(files):
    """Rows count from the first point on that is new at their model and budget."""
    table = pd.read_csv(files / "all.csv")
    top, known = float(table["budget"].max()), float(table["budget"].min())
    there = table[(table["model"] == "mor") & (table["budget"] == known)]
    params = float(there["params"].iloc[0])
    ended = run("forecast", files / "few.csv", "--at", f"budget={known!r} params={params!r}",
                "--at", f"budget={top!r} best=no params={params!r}", "--out", files / "out",
                "--json", "--bootstrap", 100)  # fmt: skip
    file = json.loads(ended.stdout)["file"]

    def scored(points: pd.DataFrame) -> tuple[list[dict], dict]:
        points.to_csv(files / "now.csv", index=False)
        content = json.loads(run("score", file, files / "now.csv", "--json").stdout)
        return content["forecasts"][0]["scores"], content["calibration"]

    rows, total = scored(table)
    measured = [row for row in rows if row["measured"] is not None]
    assert len(measured) >= 6
    assert {row["budget"] for row in measured} == {known}
    assert total == {"number": 0, "hits": 0, "z_rms": None}
    assert all((row["hit"], row["z"]) == (None, None) and row["reason"] for row in rows)

    again = pd.concat([table, there.iloc[[0]].assign(seed=9)])
    rows, total = scored(again)
    judged = {(row["what"].split()[0], row["model"]) for row in rows if row["hit"] is not None}
    assert judged == {(what, "mor") for what in ("best", "N_opt", "gap", "run")}
    assert total["number"] == 4


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.update(level=0.99),
        lambda c: c["predictions"][0].update(loss=2.0),
        lambda c: c.pop("digest"),
        lambda c: c["points"].clear(),
    ],
)
def test_an_edited_forecast_is_not_scored(files, edit):
    path = files / "out" / write(files)["file"].rpartition("/")[2]
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    ended = run("score", path, files / "all.csv")
    assert ended.exit_code == 2
    assert str(path) in ended.output
    assert "changed" in ended.output


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"predictions": [], "schema": 9}'])
def test_a_file_that_is_no_forecast_is_refused(files, content):
    path = files / "x.json"
    path.write_text(content)
    ended = run("score", path, files / "all.csv")
    assert ended.exit_code == 2
    assert str(path) in ended.output


def test_points_that_changed_since_are_said(files):
    file = write(files)["file"]
    table = pd.read_csv(files / "all.csv")
    table.loc[0, "loss"] *= 1.001
    table.drop(index=1).to_csv(files / "all.csv", index=False)
    content = json.loads(run("score", file, files / "all.csv", "--json").stdout)
    assert len(content["warnings"]) == 2


def test_points_of_another_convention_are_refused(files):
    pd.read_csv(files / "few.csv").assign(convention="paper").to_csv(files / "few.csv", index=False)
    file = write(files)["file"]
    pd.read_csv(files / "all.csv").assign(convention="6nd").to_csv(files / "all.csv", index=False)
    ended = run("score", file, files / "all.csv")
    assert ended.exit_code == 2
    assert "convention" in ended.output


@pytest.mark.parametrize(
    "at",
    ["", "model=mor", "budget", "budget=", "budget=x", "budget=0", "budget=inf", "buget=1e18",
     "budget=1e18 budget=2e18", "budget=1e18 'model=mor", "budget=1e18 params=-1",
     "budget=1e18 best=no", "budget=1e18 size=9k best=maybe"],
)  # fmt: skip
def test_at_is_read_as_written_or_refused(at):
    with pytest.raises(AnalysisError, match="--at"):
        parse_at(at)


def test_at_takes_lists_and_suffixes():
    asked = parse_at("budget=1e18,2e18 model=mor params=30M,1e9 size=135m")
    assert asked.budgets == (1e18, 2e18)
    assert (asked.models, asked.sizes, asked.params) == (("mor",), ("135m",), (30e6, 1e9))
    assert asked.best
    assert not parse_at("budget=1e18 size=135m best=no").best


@pytest.mark.parametrize("level", [0, 1, 90, -0.5])
def test_a_level_is_a_share(files, level):
    ended = run("forecast", files / "few.csv", "--at", AT, "--level", level)
    assert ended.exit_code == 2
    assert "--level" in ended.output
