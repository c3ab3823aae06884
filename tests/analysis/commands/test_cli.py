import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app

ROOT = Path(__file__).parents[3]


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["isoflop", *map(str, arguments)])


def test_json_has_the_promised_shape_and_nothing_else_on_stdout(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(store, "--json")
    assert result.exit_code == 0
    content = json.loads(result.stdout)
    assert set(content["models"]) == {"vanilla", "mor"}
    model = content["models"]["mor"]
    assert model["a"] == pytest.approx(0.5)
    assert model["b"] == pytest.approx(0.5)
    assert len(model["a_interval"]) == len(model["b_interval"]) == 2
    assert {"budget", "params", "tokens", "loss", "status", "n_points"} <= set(model["minima"][0])
    assert content["n_points"] == 42
    assert content["convention"] == "paper"
    assert content["source"] == str(store)
    assert content["warnings"] == []
    assert not (tmp_path / "analysis_out").exists()


def test_json_is_valid_where_nothing_could_be_fitted(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("params,tokens,loss,budget\n1e6,1e7,3,1e14\n2e6,1e7,3,1e14\n")
    content = json.loads(invoke(path, "--json").stdout, parse_constant=pytest.fail)
    model = content["models"]["model"]
    assert model["a"] is None
    assert model["minima"][0]["status"] == "too few points"
    assert any("No exponent" in warning for warning in model["warnings"])


def test_json_with_out_draws_too(store, tmp_path):
    result = invoke(store, "--json", "--out", tmp_path / "drawn")
    json.loads(result.stdout)
    assert str(tmp_path / "drawn") in result.stderr
    assert (tmp_path / "drawn" / "isoflop_curves.svg").is_file()


def test_a_study_is_told_in_words_and_its_figures_stand_in_the_study(study):
    result = invoke(study)
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert "N_opt ~ C^0.500" in words
    assert "With 10 times the compute, the best model has 3.2 times the parameters" in words
    assert "No result yet for 1 of 22 runs" in words
    assert (study / "analysis" / "isoflop_curves.png").is_file()
    assert (study / "analysis" / "loss_vs_budget.csv").is_file()
    assert words.endswith(f"python -m analysis report {study}")


def test_the_next_command_has_the_options_of_this_one(store, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = table.drop(columns=["curve", "label"], errors="ignore")
    own.rename(columns={"loss": "val loss"}).to_csv("my points.csv", index=False)
    said = invoke("my points.csv", "--columns", "loss=val loss", "--bootstrap", 0).stdout
    next_command = said.splitlines()[-1].partition("python -m analysis ")[2]
    assert CliRunner().invoke(app, shlex.split(next_command)).exit_code == 0, next_command
    said = invoke(store, "--params", "total", "--allow-mixed", "--bootstrap", 0).stdout
    assert said.endswith(f"report {store} --params total --allow-mixed\n")


def test_the_default_folder_of_a_store_is_analysis_out(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke(store).exit_code == 0
    assert (tmp_path / "analysis_out" / "isoflop_curves.pdf").is_file()


def test_an_error_is_one_sentence_on_stderr_and_exit_code_2(tmp_path):
    result = invoke(tmp_path / "nowhere.csv")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: POINTS")
    assert result.stderr.count("\n") == 1


def test_an_output_folder_that_cannot_be_made_is_an_error(store, tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke(store, "--out", tmp_path / "file" / "page")
    assert result.exit_code == 2
    assert "--out" in result.stderr


def test_options_reach_the_fit(store):
    plain = json.loads(invoke(store, "--json", "--bootstrap", 0).stdout)
    assert plain["models"]["mor"]["a_interval"] is None
    assert plain["bootstrap"] == {"resamples": 0, "seed": 0}
    total = json.loads(invoke(store, "--json", "--params", "total", "--loss", "topk").stdout)
    for left, right in zip(
        plain["models"]["mor"]["minima"], total["models"]["mor"]["minima"], strict=True
    ):
        assert right["params"] == pytest.approx(2 * left["params"])
        assert right["loss"] == pytest.approx(left["loss"] - 0.5)
    narrow = json.loads(invoke(store, "--json", "--window", 1, "--seed", 3).stdout)
    assert {m["n_points"] for m in narrow["models"]["mor"]["minima"]} == {3}
    assert narrow["bootstrap"]["seed"] == 3


def test_study_and_allow_mixed_reach_the_points(study, store, edit_result):
    named = json.loads(invoke(store, "--study", "first", "--json").stdout)
    assert set(named["models"]) == {"vanilla"}
    edit_result("mor-3k-1e+10-0", convention="exact")
    assert invoke(store, "--json").exit_code == 2
    mixed = json.loads(invoke(store, "--json", "--allow-mixed").stdout)
    assert mixed["convention"] == "exact + paper"


@pytest.mark.parametrize("options", [["--window", "0"], ["--bootstrap", "-1"], ["--loss", "best"]])
def test_impossible_options_are_refused(store, options):
    assert invoke(store, *options).exit_code == 2


def test_help_teaches_with_examples():
    result = invoke("--help")
    assert "python -m analysis isoflop runs --json" in result.stdout
    assert "Exit codes" in result.stdout
    assert "./analysis_out" in result.stdout.split("Options")[0]  # what it leaves where you are


def test_help_starts_fast_and_nothing_heavy_is_imported():
    code = (
        "import analysis.commands.cli, sys; "
        "heavy = {'torch', 'pandas', 'matplotlib', 'scipy', 'numpy'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    start = time.perf_counter()
    help_ = [sys.executable, "-m", "analysis", "--help"]
    subprocess.run(help_, cwd=ROOT, check=True, capture_output=True)
    # 0.15 s on two idle cores; the margin is for busy ones.
    assert time.perf_counter() - start < 2


def test_a_full_page_needs_no_training_package(study):
    code = (
        "import sys; from analysis.commands.cli import app; "
        f"app(['report', {str(study)!r}], standalone_mode=False); "
        "held = {m.split('.')[0] for m in sys.modules}; "
        "assert 'jinja2' in held and 'matplotlib' not in held; "
        "assert not held & {'torch', 'hydra', 'omegaconf', 'submitit', 'mor', 'sweeps'}, held"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
