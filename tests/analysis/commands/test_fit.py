import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from tests.analysis.laws import law_table, looped_table

ROOT = Path(__file__).parents[3]


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["fit", *map(str, arguments)])


@pytest.fixture
def points(tmp_path) -> Path:
    path = tmp_path / "points.csv"
    law_table(0.003).drop(columns="trunk").to_csv(path, index=False)
    return path


def test_json_has_the_promised_shape(points):
    content = json.loads(invoke(points, "--json", "--bootstrap", 50, "--starts", 200).stdout)
    assert content["law"] == "chinchilla"
    assert content["n_points"] == 40
    assert set(content["params"]) == {"A", "B", "E", "alpha", "beta"}
    assert set(content["exponents"]) == {"a", "b"}
    assert set(content["interval"]) == {"A", "B", "E", "alpha", "beta", "a", "b"}
    low, high = content["interval"]["a"]
    assert low < content["exponents"]["a"] < high
    sure = content["certificate"]
    assert sure["objective"] == content["objective"]
    assert {"gradient_norm", "basins", "agree", "starts", "polished"} <= set(sure)
    assert content["bootstrap"]["resamples"] == 50
    assert len(content["hold_out"]["budgets"]) == 5
    assert isinstance(content["warnings"], list)


def test_words_hold_the_same_numbers(points):
    options = (points, "--bootstrap", 50, "--starts", 200)
    content = json.loads(invoke(*options, "--json").stdout)
    words = invoke(*options).stdout
    assert f"{content['params']['alpha']:.6g}" in words
    assert "200 starts scored" in words
    assert "Extrapolation to the largest budget" in words


def test_achieved_budgets_are_resampled_and_left_out_as_planned_ones(points, tmp_path):
    table = pd.read_csv(points)
    off = np.random.default_rng(1).uniform(-0.004, 0.004, len(table))
    path = tmp_path / "achieved.csv"
    table.assign(budget=table["budget"] * (1 + off)).to_csv(path, index=False)
    options = ("--json", "--bootstrap", 50, "--starts", 200, "--resample", "budgets")
    planned, found = (json.loads(invoke(file, *options).stdout) for file in (points, path))
    assert found["bootstrap"]["groups"] == planned["bootstrap"]["groups"] == 5
    assert found["interval"]["a"] == planned["interval"]["a"]
    for left, other in zip(
        found["hold_out"]["budgets"], planned["hold_out"]["budgets"], strict=True
    ):
        assert (left["n_points"], left["rms"]) == (other["n_points"], other["rms"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", [1e-100, 1e-300, 5e-324])
@pytest.mark.parametrize("objective", ["log", "raw"])
def test_a_loss_next_to_nothing_gives_numbers(points, tmp_path, loss, objective):
    table = pd.read_csv(points)
    table.loc[3, "loss"] = loss
    path = tmp_path / "nothing.csv"
    table.to_csv(path, index=False)
    options = ("--bootstrap", 50, "--starts", 200, "--objective", objective)
    found = invoke(path, *options, "--json")
    assert found.exit_code == 0, found.output
    content = json.loads(found.stdout, parse_constant=pytest.fail)
    assert "outliers" in content["warning_codes"]
    first = content["hold_out"]["budgets"][0]
    assert first["rms"] >= first["mean"] > 1e30
    assert max(map(len, invoke(path, *options).stdout.splitlines())) < 400


def test_columns_of_other_names_are_mapped(points, tmp_path):
    renamed = tmp_path / "renamed.csv"
    header, rest = points.read_text().split("\n", 1)
    header = header.replace("params", "N").replace("tokens", "D").replace("budget", "C")
    renamed.write_text(header + "\n" + rest)
    options = ("--json", "--bootstrap", 0, "--starts", 200)
    assert "no column params" in invoke(renamed, *options).stderr
    mapped = json.loads(invoke(renamed, "--columns", "params=N, tokens=D", *options).stdout)
    assert mapped["params"] == json.loads(invoke(points, *options).stdout)["params"]
    assert mapped["hold_out"]["budgets"] == []


@pytest.mark.parametrize(
    ("columns", "said"),
    [("params", "OURS=THEIRS"), ("sizes=N", "not one of ours"), ("params=nope", "nope")],
)
def test_columns_that_cannot_be_are_refused_in_one_sentence(points, columns, said):
    result = invoke(points, "--columns", columns)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_columns_and_a_run_store_do_not_go_together(store):
    assert "leave --columns out" in invoke(store, "--columns", "params=N").stderr


def test_a_store_is_fitted_model_by_model(store):
    content = json.loads(invoke(store, "--json", "--bootstrap", 0, "--starts", 100).stdout)
    assert set(content["models"]) == {"vanilla", "mor"}
    assert content["models"]["mor"]["n_points"] == 21


def test_trunks_of_a_store_are_resampled(store, table, edit_result):
    for row in table.to_dict("records"):
        edit_result(row["run_id"], trunk=f"{row['model']}-{row['size']}-trunk-0")
    content = json.loads(invoke(store, "--json", "--bootstrap", 20, "--starts", 100).stdout)
    assert content["models"]["mor"]["bootstrap"]["design"] == "trunks"
    assert content["models"]["mor"]["bootstrap"]["groups"] == 7


def test_as_many_parameters_as_points_is_exit_2_and_one_sentence(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("params,tokens,loss\n" + "".join(f"{i}e6,{i}e7,3.{i}\n" for i in range(1, 6)))
    result = invoke(path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "5 parameters and there are only 5 points" in result.stderr
    assert result.stderr.count("\n") == 1


def test_bad_rows_and_duplicates_are_named(points):
    text = points.read_text().splitlines()
    points.write_text("\n".join([*text, text[-1].replace("vanilla", "vanilla")]) + "\n")
    result = invoke(points)
    assert result.exit_code == 2
    assert "2 points for model vanilla" in result.stderr
    rows = [*text, "vanilla,,1e19,1e8,1e10,nan" + "," * 6, "vanilla,,1e19,2e8,1e10,-3" + "," * 6]
    points.write_text("\n".join(rows) + "\n")
    warnings = json.loads(invoke(points, "--json", "--bootstrap", 0).stdout)["warnings"]
    assert "line 42 (loss nan), line 43 (loss -3)" in warnings[0]


def test_joint_is_one_fit_for_all_models(tmp_path):
    path = tmp_path / "looped.csv"
    looped_table().drop(columns="trunk").to_csv(path, index=False)
    options = ("--law", "joint", "--json", "--bootstrap", 20, "--starts", 300)
    content = json.loads(invoke(path, *options).stdout)
    assert content["n_points"] == 120
    assert set(content["params"]) == {"A", "B", "E", "alpha", "beta", "phi"}
    assert content["params"]["phi"] == pytest.approx(0.459, abs=0.05)
    assert (
        "no column n_once"
        in invoke(
            ROOT / "analysis/reference/table9_isoflop.csv",
            "--law",
            "joint",
            "--columns",
            "params=n_nonemb,loss=val_nll",
        ).stderr
    )


def test_a_fit_imports_neither_torch_nor_scipy_optimize(points):
    code = (
        "import sys; from analysis.commands.cli import app; "
        f"app(['fit', {str(points)!r}, '--starts', '50'], standalone_mode=False); "
        "assert not {'torch', 'scipy.optimize', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_squares_of_the_loss_are_minimised_on_request(points):
    log = json.loads(invoke(points, "--json", "--bootstrap", 0).stdout)
    raw = json.loads(invoke(points, "--json", "--bootstrap", 0, "--objective", "raw").stdout)
    assert (log["minimised"], raw["minimised"]) == ("log", "raw")
    assert raw["delta"] is None
    table = pd.read_csv(points)

    def squares(found: dict) -> float:
        p = found["params"]
        predicted = p["E"] + p["A"] / table["params"] ** p["alpha"]
        predicted += p["B"] / table["tokens"] ** p["beta"]
        return float(0.5 * np.sum((predicted - table["loss"]) ** 2))

    assert squares(raw) == pytest.approx(raw["objective"], rel=1e-6)
    assert squares(raw) < squares(log)


def test_a_delta_without_huber_is_refused(points):
    ended = invoke(points, "--objective", "raw", "--delta", 0.01)
    assert ended.exit_code == 2
    assert "--delta 0.01" in ended.output


def test_warnings_have_codes_for_scripts(points, tmp_path):
    table = pd.read_csv(points)
    path = tmp_path / "ladder.csv"
    tokens = 20 * table["params"]
    loss = 1.7 + 400 / table["params"] ** 0.34 + 1500 / tokens**0.3
    table.assign(tokens=tokens, loss=loss, budget=6 * table["params"] * tokens).to_csv(
        path, index=False
    )
    content = json.loads(invoke(path, "--json", "--bootstrap", 0).stdout)
    assert "not_identified" in content["warning_codes"]
    assert len(content["warning_codes"]) == len(content["warnings"])
