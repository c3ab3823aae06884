"""The tuning certificate: its interval holds the truth, what is untuned, what a verdict says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from analysis.cautions import Code
from analysis.commands.cli import app
from analysis.compare import mistuning
from analysis.compare.equal_compute import compare
from analysis.errors import AnalysisError
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.tuning.cells import tune_table
from analysis.fits.tuning.fit import fit_tuning
from analysis.fits.tuning.recipe import recipe_of
from ledger.recipe import Recipe, read_recipe, write_recipe
from tests.analysis.commands.test_tune import as_study
from tests.analysis.fits.tuning.studies import LR_BEND, rise, tune_study

MODELS = ("vanilla", "mor")


def recipe(noise: float = 1e-4, seed: int = 0, models: tuple[str, ...] = ("vanilla",)) -> Recipe:
    cells = tune_table(tune_study(noise, seed=seed, models=models))
    found = recipe_of(fit_tuning(cells, 400), cells, "r", "s").recipe
    assert found is not None
    return found


def row(factor: float = 1.0, **settings: object) -> dict[str, object]:
    """A run at `factor` times the best rate."""
    [first, *_] = tune_study(factors=(factor / 0.8,)).to_dict("records")
    return {**first, "curve": first["model"], "settings": {**first["settings"], **settings}}


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_an_exact_study_gives_the_exact_loss(factor):
    found = mistuning.certify(row(factor), recipe(1e-6))
    off = 0.5 * LR_BEND * np.log(factor) ** 2
    best = float(row(factor)["loss"]) / (1 + off)
    assert found.away["train.lr"] == pytest.approx(factor, rel=1e-3)
    assert found.lost == pytest.approx(best * off, rel=1e-2, abs=1e-7)
    low, high = found.interval
    assert low <= found.lost + 1e-9
    assert high >= found.lost


def test_the_interval_holds_the_true_loss():
    held = []
    for seed in range(60):
        found = mistuning.certify(row(2.0), recipe(0.002, seed))
        truth = float(row(1.0)["loss"]) * 0.5 * LR_BEND * np.log(2.0) ** 2
        low, high = found.interval
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.9


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_skew_valley_does_not_cost_more_than_the_interval_says(factor):
    for seed in range(20):
        cells = tune_table(tune_study(0.003, seed=seed, skewed=True))
        known = recipe_of(fit_tuning(cells, 400), cells, "r", "s").recipe
        [point] = tune_study(
            factors=(factor / 0.8,), sizes={"s": 1e6}, budgets=(1e15,), skewed=True
        ).to_dict("records")
        found = mistuning.certify({**point, "curve": "vanilla"}, known)
        share = rise(np.log(factor), True)
        assert found.interval[1] >= point["loss"] * share / (1 + share)


def test_what_is_untuned():
    known = recipe()
    for one, said in (
        (mistuning.certify(row(**{"train.optimizer": "muon"}), known), "train.optimizer"),
        (mistuning.certify(row(**{"train.muon_momentum": "0.9"}), known), "train.muon_momentum"),
        (mistuning.certify({**row(), "model": "mor"}, known), "mor"),
        (mistuning.certify(row(30.0), known), "train.lr"),
        (mistuning.certify({**row(), "settings": None}, known), "settings"),
        (mistuning.certify(row(), None, mistuning.NOTHING), mistuning.NOTHING),
    ):
        assert not one.tuned
        assert said in one.reason
    same = row(**{"seed": 7, "budget": 1, "size.d_model": 3})
    assert mistuning.certify(same, known).tuned


def test_a_size_beyond_the_law_is_noted():
    assert mistuning.certify({**row(), "params": 5e5}, recipe()).note
    assert not mistuning.certify(row(), recipe()).note


def study(make_table, factor: float, models: dict[str, float], **columns: object):
    """Isoflop points whose rates are `factor` times the best; `models` are gaps."""
    table = make_table(noise=0.002, models=tuple(models), sizes={f"{n}": n for n in SIZES})
    table["loss"] += table["model"].map(models)
    settings = []
    for point in table.to_dict("records"):
        near = row()["settings"]
        lr = factor * 2.0 * point["params"] ** -0.4
        settings.append({**near, "train.lr": repr(lr)})
    return table.assign(settings=settings, recipe=None, **columns)


SIZES = (3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6)


def test_a_verdict_says_how_much_of_the_gap_is_mistuning(make_table, tmp_path):
    table = study(make_table, 2.0, {"vanilla": 0.0, "mor": -0.05})
    result = fit_isoflop(table, resamples=50)
    done = compare(result, "vanilla")
    write_recipe(tmp_path / "r.json", recipe(1e-4, models=MODELS))
    found = mistuning.tuning_of(done, result, table, tmp_path / "r.json")
    assert all(one.tuned for one in found.certificates)
    for one, gap in zip(found.comparisons, done.comparisons, strict=True):
        # both are a factor of 2 away: what the one may lose more is less than the intervals allow
        assert 0 < one.explains_at_most < one.baseline_lost[1] - one.lost[0] < abs(gap.gap)
        assert f"{one.explains_at_most:.2g}" in mistuning.words(one, gap.gap)
        assert "all of it" in mistuning.words(replace(one, explains_at_most=1.0), gap.gap)
    untuned = mistuning.tuning_of(done, result, table)
    assert {one.explains_at_most for one in untuned.comparisons} == {None}
    assert [w.code for w in untuned.warnings] == [Code.UNTUNED]


def test_mixed_recipes_are_named(make_table, tmp_path):
    table = study(make_table, 1.0, {"vanilla": 0.0, "mor": -0.05})
    result = fit_isoflop(table, resamples=0)
    done = compare(result, "vanilla")
    file = tmp_path / "r.json"
    write_recipe(file, recipe(models=("vanilla",)))
    found = mistuning.tuning_of(done, result, table, file)
    assert Code.MIXED_RECIPES in {w.code for w in found.warnings}
    assert {one.explains_at_most for one in found.comparisons} == {None}
    write_recipe(file, recipe(models=MODELS))
    followed = table.assign(recipe=np.where(table["model"] == "mor", str(file), None))
    by_run = mistuning.tuning_of(done, result, followed)
    assert {one.curve for one in by_run.certificates if one.tuned} == {"mor"}
    assert Code.MIXED_RECIPES in {w.code for w in by_run.warnings}
    names = table.assign(recipe=np.where(table["model"] == "mor", "paper", None))
    assert [w.code for w in mistuning.tuning_of(done, result, names).warnings] == [
        Code.UNTUNED,
        Code.MIXED_RECIPES,
    ]


def test_sizes_are_counted_as_the_recipe_counts_them(make_table, tmp_path):
    table = study(make_table, 1.0, {"vanilla": 0.0, "mor": 0.0})
    result = fit_isoflop(table, resamples=0)
    done = compare(result, "vanilla")
    write_recipe(tmp_path / "r.json", replace(recipe(models=MODELS), params="total"))
    for params, tuned in (("nonembedding", False), ("total", True)):
        found = mistuning.tuning_of(done, result, table, tmp_path / "r.json", params)
        assert {one.tuned for one in found.certificates} == {tuned}
    assert (
        "--params total"
        in mistuning.tuning_of(done, result, table, tmp_path / "r.json").warnings[0].text
    )


def test_points_without_settings_are_untuned(make_table):
    table = make_table()
    result = fit_isoflop(table, resamples=0)
    found = mistuning.tuning_of(compare(result, "vanilla"), result, table)
    assert [w.code for w in found.warnings] == [Code.UNTUNED]


def test_a_recipe_without_tuning_is_refused(make_table, tmp_path):
    table = make_table()
    result = fit_isoflop(table, resamples=0)
    done = compare(result, "vanilla")
    plain = replace(recipe(), tuning={})
    write_recipe(tmp_path / "r.json", plain)
    for file in (tmp_path / "r.json", tmp_path / "none.json"):
        with pytest.raises(AnalysisError, match="--recipe"):
            mistuning.tuning_of(done, result, table, file)


def test_tuning_survives_its_file(tmp_path):
    found = recipe()
    write_recipe(tmp_path / "r.json", found)
    back = read_recipe(tmp_path / "r.json")
    assert mistuning.certify(row(2.0), back) == mistuning.certify(row(2.0), found)
    values = json.loads((tmp_path / "r.json").read_text())
    values["tuning"]["vanilla"]["covariance"] = [[1.0]]
    (tmp_path / "r.json").write_text(json.dumps(values))
    with pytest.raises(Exception, match=r"tuning\.vanilla"):
        read_recipe(tmp_path / "r.json")


def test_compare_on_the_command_line(tmp_path: Path):
    """A study that followed the recipe is judged by it without an option."""
    tuned = as_study(tmp_path, tune_study(1e-3, models=MODELS))
    assert CliRunner().invoke(app, ["tune", str(tuned)]).exit_code == 0
    file = tuned / "recipe.json"
    sizes = {f"s{i}": 1e6 * 2**i for i in range(5)}
    runs = tune_study(1e-3, models=MODELS, sizes=sizes, factors=(1.0,), seed=1)
    runs["run_id"] = "x" + runs["run_id"]
    study = as_study(tmp_path / "other", runs, "runs", recipe=str(file))
    ended = CliRunner().invoke(app, ["compare", str(study), "--json"])
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert all(row["tuned"] for row in told["tuning"])
    assert all(row["mistuning"]["explains_at_most"] is not None for row in told["comparisons"])
    page = tmp_path / "p.html"
    written = CliRunner().invoke(
        app, ["report", str(study), "--recipe", str(file), "--out", str(page), "--no-reference"]
    )
    assert written.exit_code == 0, written.output
    assert "istuning" in page.read_text()
