"""Points that cannot be used, in every command: one sentence and exit 2, or left out by name."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.commands.cli import COMMANDS, app

ROOT = Path(__file__).parents[3]
NO_POINTS = {"design", "inspection", "score"}  # they take a grid, an inspection, a forecast
FITS = sorted(set(COMMANDS) - NO_POINTS)
MORE = {"forecast": ("--at", "budget=1e20")}  # what a command cannot do without


def invoke(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)])


def refusal(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.stdout
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("command", FITS)
def test_what_is_not_there_and_what_is_empty(command, tmp_path):
    more = MORE.get(command, ())
    assert "does not exist" in refusal(command, tmp_path / "nowhere", *more)
    (tmp_path / "runs").mkdir()
    assert "no finished run" in refusal(command, tmp_path / "runs", *more)
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    assert "empty.csv" in refusal(command, empty, *more)


@pytest.mark.parametrize("command", FITS)
def test_missing_columns_are_named(command, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("params,loss\n1e6,3\n")
    said = refusal(command, path, *MORE.get(command, ()))
    assert "no column tokens" in said
    assert "--columns tokens=<yours>" in said


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (["params=N", "tokens=D", "loss=val loss"], "'params=N,tokens=D,loss=val loss'"),
        (["loss=val", "loss"], "'loss=val loss'"),
        (["params=N,", "tokens=D"], "params=N,tokens=D"),
    ],
)
def test_several_values_of_columns_are_to_be_joined(words, whole, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("params,loss\n1e6,3\n")
    assert f"--columns {whole}" in refusal("isoflop", path, "--columns", *words)
    assert f"--columns {whole}" in refusal("isoflop", "--columns", *words, path)


@pytest.mark.parametrize("command", ["compare", "envelope", "fit", "isoflop"])
def test_mixed_conventions_are_refused_unless_allowed(command, store, edit_result):
    edit_result("mor-3k-1e+10-0", convention="exact")
    assert "--allow-mixed" in refusal(command, store)
    allowed = invoke(command, store, "--allow-mixed", "--json", "--bootstrap", 0)
    assert allowed.exit_code == 0


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"inspection"}))
def test_every_command_whose_refusal_names_the_option_has_it(command):
    assert "--allow-mixed" in invoke(command, "--help").stdout


def test_figures_are_drawn_of_mixed_points_where_allowed(store, edit_result, tmp_path):
    edit_result("mor-3k-1e+10-0", code="another")
    asked = ("figures", store, "--source", "runs", "--only", "figure_3", "--out", tmp_path / "out")
    assert "--allow-mixed" in invoke(*asked).stdout
    done = invoke(*asked, "--allow-mixed")
    assert done.exit_code == 0
    assert done.stdout.startswith("drawn")
    assert list((tmp_path / "out").glob("figure_3*.png"))


@pytest.mark.parametrize("command", ["compare", "envelope", "fit", "isoflop"])
def test_a_diverged_run_is_left_out_by_name(command, store, edit_result):
    edit_result("mor-3k-1e+10-0", status="diverged", loss={})
    result = invoke(command, store, "--json", "--bootstrap", 0)
    assert result.exit_code == 0
    assert "with status 'diverged': mor-3k-1e+10-0" in result.stdout


@pytest.mark.parametrize("command", ["compare", "isoflop"])
def test_two_points_a_budget_make_no_minimum(command, tmp_path):
    path = tmp_path / "two.csv"
    rows = [
        f"{model},{size},1e9,{3 + size / 1e9},{budget}"
        for model in ("vanilla", "mor")
        for budget in (1e17, 1e18)
        for size in (1e7, 2e7)
    ]
    path.write_text("\n".join(["model,params,tokens,loss,budget", *rows]))
    result = invoke(command, path, "--json")
    assert result.exit_code == 0
    assert "too few points" in result.stdout or "upper bound" in result.stdout


@pytest.mark.parametrize("command", sorted(NO_POINTS - {"design"}))
def test_files_that_are_not_there_are_named(command, tmp_path):
    assert "nowhere.json" in refusal(command, tmp_path / "nowhere.json")


@pytest.mark.parametrize("command", FITS)
def test_help_has_examples_and_exit_codes(command):
    words = invoke(command, "--help").stdout
    assert f"python -m analysis {command}" in words
    assert "Exit codes" in words


def test_the_overall_help_lists_every_command_and_is_fast():
    began = time.perf_counter()
    command = [sys.executable, "-m", "analysis", "--help"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert all(name in done.stdout for name in COMMANDS)
    assert time.perf_counter() - began < 2  # 0.25 s on an idle core
