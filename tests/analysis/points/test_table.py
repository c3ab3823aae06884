import json
from pathlib import Path

import numpy as np
import pytest

from analysis.cautions import Code
from analysis.errors import AnalysisError
from analysis.points.load import load_points
from analysis.points.table import COLUMNS, curve_of


def csv(tmp_path: Path, text: str, name: str = "points.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


HEAD = "params,tokens,loss,budget\n"


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(AnalysisError) as caught:
        load_points(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_csv_gives_the_tidy_table(tmp_path):
    points = load_points(csv(tmp_path, HEAD + "1e6, 2e7, 3.5, 1e14\n2000000,1e7,3.4,1e14\n"))
    assert tuple(points.table.columns) == COLUMNS
    assert points.table["params"].tolist() == [1e6, 2e6]
    assert set(points.table["model"]) == {"model"}
    assert points.table["source"].iloc[1].endswith("points.csv, line 3")
    assert points.convention is None
    assert points.warnings == ()


def test_csv_keeps_the_columns_it_has(tmp_path):
    text = "model,size,seed,run_id,convention,params,tokens,loss,budget\nmor,s,3,r1,paper,1,2,3,4\n"
    row = load_points(csv(tmp_path, text)).table.iloc[0]
    assert (row["model"], row["size"], row["seed"], row["run_id"]) == ("mor", "s", 3, "r1")
    assert row["convention"] == "paper"


def test_a_csv_without_a_column_is_refused_by_name(tmp_path):
    message = refusal(csv(tmp_path, "params,loss,budget\n1,2,3\n"))
    assert "no column tokens" in message
    assert "points.csv" in message


@pytest.mark.parametrize("bad", ["nan", "-1", "0", "inf", "abc", ""])
def test_an_unusable_row_is_left_out_and_named_by_its_line(tmp_path, bad):
    path = csv(tmp_path, HEAD + f"1e6,2e7,3.5,1e14\n\n2e6,1e7,{bad},1e14\n")
    points = load_points(path)
    assert len(points.table) == 1
    assert "line 4 (loss" in points.warnings[0].text
    assert (bad or "empty") in points.warnings[0].text.lower()


def test_a_csv_with_only_unusable_rows_is_refused(tmp_path):
    message = refusal(csv(tmp_path, HEAD + "-5,2e7,3.5,1e14\n"))
    assert "line 2 (params -5)" in message
    assert "nothing to fit" in message


@pytest.mark.parametrize("text", ["", HEAD])
def test_an_empty_csv_is_refused(tmp_path, text):
    assert "points.csv" in refusal(csv(tmp_path, text))


def test_other_files_and_missing_paths_are_refused(tmp_path):
    assert "not a .csv file" in refusal(csv(tmp_path, HEAD, "points.parquet"))
    assert "does not exist" in refusal(tmp_path / "nowhere")
    broken = tmp_path / "broken.csv"
    broken.write_bytes(b"\xff\xfe\x00\x01\x80")
    assert "cannot be read as CSV" in refusal(broken)


def test_mixed_conventions_corpora_and_code_are_refused_unless_allowed(tmp_path):
    for column in ("convention", "data_fingerprint", "code"):
        text = f"{column},params,tokens,loss,budget\npaper,1,2,3,4\nexact,2,2,3,4\n"
        path = csv(tmp_path, text)
        message = refusal(path)
        assert "exact (1 point)" in message
        assert "--allow-mixed" in message
        assert len(load_points(path, allow_mixed=True).table) == 2


def test_a_convention_that_some_rows_lack_is_mixed(tmp_path):
    text = "convention,params,tokens,loss,budget\npaper,1,2,3,4\n,2,2,3,4\n"
    assert "none given (1 point)" in refusal(csv(tmp_path, text))


def test_duplicates_are_refused_by_name_and_seeds_are_not(tmp_path):
    head = "run_id,seed,params,tokens,loss,budget\n"
    message = refusal(
        csv(tmp_path, head + "a,0,1e6,2e7,3,1e14\nb,0,1e6,2e7,3.1,1e14\nc,0,2e6,2e7,3,1e14\n")
    )
    assert "(a, b)" in message
    assert "seed 0" in message
    points = load_points(csv(tmp_path, head + "a,0,1e6,2e7,3,1e14\nb,1,1e6,2e7,3.1,1e14\n"))
    assert len(points.table) == 2
    assert "no seed" in refusal(csv(tmp_path, HEAD + "1e6,2e7,3,1e14\n1e6,2e7,3.1,1e14\n"))


def test_options_of_a_run_store_are_refused_for_a_csv(tmp_path):
    path = csv(tmp_path, HEAD + "1e6,2e7,3.5,1e14\n")
    assert "--loss topk" in refusal(path, loss="topk")
    assert "--params total" in refusal(path, params="total")
    assert "--study x" in refusal(path, study="x")


def test_the_run_store_gives_the_same_table(store, table):
    points = load_points(store)
    assert points.convention == "paper"
    got = points.table.sort_values("run_id").reset_index(drop=True)
    wanted = table.sort_values("run_id").reset_index(drop=True)
    for column in COLUMNS[:-3]:
        assert got[column].tolist() == wanted[column].tolist(), column
    assert got[["label", "curve"]].isna().all(axis=None)
    assert Path(got["source"].iloc[0]) == store / got["run_id"].iloc[0]


def test_loss_and_params_are_chosen_by_name(store):
    plain = load_points(store).table
    other = load_points(store, loss="topk", params="total").table
    np.testing.assert_allclose(other["loss"], plain["loss"] - 0.5)
    np.testing.assert_allclose(other["params"], 2 * plain["params"])


def test_trunks_are_no_points(store):
    (store / "mor-3k-trunk-12345678").mkdir()
    (store / "mor-3k-trunk-12345678" / "result.json").write_text("not even JSON")
    assert load_points(store).warnings == ()


def test_diverged_and_pending_runs_are_left_out_and_named(store, edit_result):
    edit_result("mor-3k-1e+10-0", status="diverged", loss={})
    (store / "mor-9m-1e10-0").mkdir()
    points = load_points(store)
    assert "mor-3k-1e+10-0" not in set(points.table["run_id"])
    assert any("diverged" in w.text and "mor-3k-1e+10-0" in w.text for w in points.warnings)
    assert any("No result yet for 1 of 43 runs: mor-9m-1e10-0" in w.text for w in points.warnings)


def test_runs_that_read_their_corpus_again_are_named(store, edit_result):
    assert not [w for w in load_points(store).warnings if w.code is Code.REPEATED_DATA]
    edit_result("mor-3k-1e+10-0", epochs=5)
    edit_result("vanilla-3k-1e+10-0", epochs=0)
    [said] = [w for w in load_points(store).warnings if w.code is Code.REPEATED_DATA]
    assert "mor-3k-1e+10-0" in said.text
    assert "vanilla-3k" not in said.text
    assert " 5 times" in said.text


def test_a_null_loss_is_left_out_and_named(store, edit_result):
    edit_result("mor-3k-1e+10-0", loss={"val_nll_causal": None})
    (warning,) = load_points(store).warnings
    assert "mor-3k-1e+10-0 (loss nan)" in warning.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "schema 2"),
        ({"loss": {"train": 1}}, "val_nll_causal"),
        ({"tokens": "many"}, "'tokens'"),
        ({"model": None}, "'model'"),
    ],
)
def test_a_result_of_another_shape_is_refused_with_its_file(store, edit_result, changes, said):
    file = edit_result("mor-3k-1e+10-0", **changes)
    message = refusal(store)
    assert said in message
    assert str(file) in message


def test_a_broken_result_is_refused_with_its_file(store):
    file = store / "mor-3k-1e+10-0" / "result.json"
    file.write_text('{"schema": 1')
    assert str(file) in refusal(store)


def test_a_store_with_nothing_finished_is_refused(tmp_path):
    assert "no finished run" in refusal(tmp_path)
    (tmp_path / "mor-3k-1e10-0").mkdir()
    assert "none with a result.json" in refusal(tmp_path)


def test_a_studys_variants_are_its_curves(study):
    plan = json.loads((study / "plan.json").read_text())
    for run in plan["runs"]:
        run["label"] = "plain" if "1e+10" in run["run_id"] else None
    (study / "plan.json").write_text(json.dumps(plan))
    table = load_points(study).table
    named = table["label"].where(table["run_id"].str.contains("1e+10", regex=False), "rest")
    assert set(named) == {"plain", "rest"}
    assert set(curve_of(table)) == {"plain", "vanilla"}
    assert set(table["model"]) == {"vanilla"}


def test_a_study_reads_its_planned_runs_only(study):
    points = load_points(study)
    assert set(points.table["model"]) == {"vanilla"}
    assert points.study_folder == study
    assert [w.text for w in points.warnings] == [
        "No result yet for 1 of 22 runs: vanilla-9m-1e13-0."
    ]


def test_a_study_is_found_from_anywhere_and_by_name(study, store, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "runs").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert len(load_points(study).table) == 21
    named = load_points(store, study="first")
    assert len(named.table) == 21
    assert named.study_folder == study
    assert "--study second" in refusal(store, study="second")
    assert "a study already" in refusal(study, study="first")


def test_a_study_without_its_store_is_refused(study):
    (study / "plan.json").write_text(json.dumps({"schema": 1, "runs": [], "runs_dir": "gone"}))
    assert "runs_dir='gone'" in refusal(study)
    (study / "plan.json").write_text(
        json.dumps({"schema": 1, "runs": [{"name": 1}], "runs_dir": "runs"})
    )
    assert "'run_id'" in refusal(study)
