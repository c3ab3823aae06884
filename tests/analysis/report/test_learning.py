"""Learning curves and bits per byte on the page, and validations on the way in approach 1."""

from __future__ import annotations

import json
import math
import shutil

import pytest
from typer.testing import CliRunner

from analysis.cautions import Code
from analysis.commands.cli import app
from analysis.errors import AnalysisError
from analysis.fits.envelope import fit_envelope
from analysis.fits.isoflop import fit_isoflop
from analysis.points.curves import from_validation, validated
from analysis.report import curves
from analysis.report.fits import exponents
from analysis.report.page import gather
from ledger.metrics import read_metrics, sealed_line
from tests.analysis.conftest import EXPONENT, SIZES, study_table
from tests.analysis.report.conftest import build, load, log_curves
from tests.analysis.report.test_page import text_of


@pytest.fixture
def study(tmp_path):
    folder = build(tmp_path)
    log_curves(tmp_path / "runs")
    return folder


def test_approach_1_takes_validations_where_all_sizes_have_them(study):
    points = load(study)
    result = fit_isoflop(points.table, resamples=50)
    found = {e.model: e for e in exponents(points.table, result, points.loss) if e.approach == 1}
    assert found["mor"].a == pytest.approx(EXPONENT, abs=0.05)
    assert found["mor"].law == "147 validations on the way of 7 sizes"
    before = {e.model: e for e in exponents(points.table, result) if e.approach == 1}
    assert found["vanilla"] == before["vanilla"]  # it has none
    assert before["mor"].law == ""


def test_without_one_sizes_validations_all_are_finished_points(study, tmp_path):
    (tmp_path / "runs" / "mor-30k-trunk-aaaa" / "metrics.jsonl").unlink()
    table = load(study).table
    assert validated(table[table["model"] == "mor"], "causal") is None
    with pytest.raises(AnalysisError, match=r"mor \(30K\).*1 of 7 trunks.*mor-30k-trunk-aaaa"):
        from_validation(table[table["model"] == "mor"], "causal")
    with pytest.raises(AnalysisError, match=r"\d trunks .*train\.eval_points=20 .*seed=1"):
        from_validation(table[table["model"] == "vanilla"], "causal")


def test_damaged_lines_are_counted_where_the_curves_are_shown(study, tmp_path):
    assert "damaged" not in curves.learning(load(study), None).said
    file = tmp_path / "runs" / "mor-30k-trunk-aaaa" / "metrics.jsonl"
    lines = [sealed_line(values) for values in read_metrics(file)[0]]
    lines[-1] = lines[-1].replace('"val_nll_causal": ', '"val_nll_causal": 1')
    file.write_text("".join(lines))
    said = curves.learning(load(study), None).said
    assert "1 line of metrics.jsonl of mor-30k-trunk-aaaa" in said
    [damaged] = from_validation(load(study).table.query("model == 'mor'"), "causal")[1]
    assert damaged.code is Code.DAMAGED


def test_a_model_with_a_size_that_lacks_them_is_left_out_by_name(study, tmp_path):
    store = tmp_path / "runs"
    for size in SIZES:
        mine, others = store / f"vanilla-{size}-trunk-aaaa", store / f"mor-{size}-trunk-aaaa"
        if size != "30k" and others.is_dir():
            mine.mkdir(exist_ok=True)
            shutil.copy(others / "metrics.jsonl", mine)
    found, said = from_validation(load(study).table, "causal")
    assert set(found["curve"]) == {"mor"}
    assert "vanilla (30K)" in said[0].text
    assert found["params"].nunique() == 7


def test_the_rule_of_inference_is_that_of_the_points(study):
    table = load(study).table
    mor = table[table["model"] == "mor"]
    causal, topk = (from_validation(mor, rule)[0] for rule in ("causal", "topk"))
    assert (causal["loss"] - topk["loss"]).to_numpy() == pytest.approx(0.5)
    assert fit_envelope("mor", causal, resamples=0).params_law.exponent is not None


def test_a_run_without_a_trunk_is_a_curve_that_ends_in_its_result(study, tmp_path):
    table = load(study).table
    row = table[table["model"] == "mor"].iloc[[0]].assign(trunk=None)
    lines = (tmp_path / "runs/mor-30k-trunk-aaaa/metrics.jsonl").read_text()
    (tmp_path / "runs" / row["run_id"].iloc[0] / "metrics.jsonl").write_text(lines)
    found, _ = from_validation(row, "causal")
    assert len(found) == 22
    end = found.iloc[-1]
    assert (end["compute"], end["loss"]) == (row["budget"].iloc[0], row["loss"].iloc[0])


def test_the_command_fits_them(study):
    result = CliRunner().invoke(
        app, ["envelope", str(study), "--curves", "validation", "--json", "--bootstrap", "0"]
    )
    content = json.loads(result.stdout)
    assert list(content["models"]) == ["mor"]
    assert content["models"]["mor"]["a"] == pytest.approx(EXPONENT, abs=0.05)


def test_the_chart_has_a_panel_for_each_model_that_logged(study, tmp_path):
    points = load(study)
    content = gather(tmp_path, fit_isoflop(points.table, resamples=0), points, False, "")
    view = content["data"]["charts"]["learning"]["views"][0]
    assert [panel["title"] for panel in view["panels"]] == ["mor"]
    assert len(view["legend"]) == 7
    items = view["panels"][0]["items"]
    marks = [item for item in items if item["kind"] == "mark"]
    # what is drawn is what was logged, but for the highest losses
    logged = sorted(
        json.loads(line)["val_nll_causal"]
        for file in (tmp_path / "runs").glob("*/metrics.jsonl")
        for line in file.read_text().splitlines()
        if "val_nll_causal" in line
    )
    drawn = sorted(mark["y"] for mark in marks)
    assert drawn == pytest.approx(logged[: len(drawn)], rel=1e-4)
    assert len(drawn) > 0.85 * len(logged)
    assert all(f"{mark['y'] / math.log(2):.3f}" in mark["text"][1][:40] for mark in marks[:3])


def test_a_study_without_metrics_has_no_such_section(tmp_path):
    points = load(build(tmp_path))
    content = gather(tmp_path, fit_isoflop(points.table, resamples=0), points, False, "")
    assert content["learning"] is None
    assert "learning" not in content["data"]["charts"]
    assert not content["in_bits"]


def test_more_curves_than_a_page_holds_are_counted(study, monkeypatch):
    monkeypatch.setattr(curves, "MOST", 3)
    found = curves.learning(load(study), None)
    assert len([i for i in found.chart["views"][0]["panels"][0]["items"] if i.get("dash")]) == 3
    assert "Shown are 3 of 7" in found.said


def test_bits_per_byte_stand_beside_every_loss(report):
    said = text_of(report)
    lowest = study_table(noise=0.004)
    assert "In bits per byte: mor " in said
    assert "Bits per byte" in said
    assert f"One nat per token is {1 / math.log(2):.4f} bits per byte" in said
    loss = lowest[lowest["model"] == "vanilla"]["loss"].iloc[0]
    assert f"{loss / math.log(2):.4f}" in said
