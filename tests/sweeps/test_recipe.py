"""Recipes as numbers of a run: ids, what wins over them, rounding, published laws, plans."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sweeps.recipe
from ledger.recipe import PowerLaw, Recipe, write_recipe
from mor.config import Config, ConfigError, ModelConfig, SizeConfig, TrainConfig
from mor.identity import identity, run_id, trunk_id
from sweeps.definition import StudyConfig, finish
from sweeps.recipe import place, recipe_lines, recipe_of, rounded, whole_batch, with_recipe

SIZE = SizeConfig("tiny", 2, d_model=16, n_heads=2, n_kv_heads=1, d_head=8, d_ff=32)
BASE = Config(ModelConfig("vanilla"), SIZE, train=TrainConfig(seq_len=64), budget=1e12)


def with_train(**settings) -> Config:
    return replace(BASE, train=replace(BASE.train, **settings))


def test_a_run_with_a_recipe_is_the_run_with_its_numbers_typed():
    by_law = with_recipe(with_train(recipe="steplaw", lr_factor=2.0))
    assert by_law.train.lr != BASE.train.lr
    assert by_law.train.batch_size != BASE.train.batch_size
    typed = with_train(lr=by_law.train.lr, batch_size=by_law.train.batch_size)
    assert run_id(by_law) == run_id(typed)
    assert trunk_id(by_law) == trunk_id(typed)


def test_a_run_without_a_recipe_keeps_its_identity():
    assert with_recipe(BASE) == BASE
    assert not {"recipe", "lr_factor", "batch_factor"} & identity(BASE)["train"].keys()


def test_the_numbers_do_not_depend_on_those_they_replace():
    one = with_recipe(with_train(recipe="steplaw", lr=1.0, batch_size=8))
    other = with_recipe(with_train(recipe="steplaw", lr=2.0, batch_size=999))
    assert run_id(one) == run_id(other)


def test_published_laws():
    """At N = 1e9 and D = 1e11 (steplaw), and where the ladder's constants are given."""
    steplaw = recipe_of("steplaw").of("vanilla")
    assert steplaw["train.lr"].at(1e9, 1e11) == pytest.approx(1.79 * 1e9**-0.713 * 1e11**0.307)
    assert steplaw["train.batch_size"].at(1e9, 1e11) == pytest.approx(0.58 * 1e11**0.571)
    ladder = recipe_of("olmo_ladder").of("vanilla")
    assert ladder["train.lr"].at(108e6, 1) == pytest.approx(0.0047)
    assert ladder["train.lr"].at(8 * 108e6, 1) == pytest.approx(0.0047 / 2)
    assert ladder["train.batch_size"].at(108e6, 1) == pytest.approx(160 * 2048)
    assert ladder["train.batch_size"].at(8 * 108e6, 1) == pytest.approx(4 * 160 * 2048)
    paper = recipe_of("paper").of("mor")
    assert (paper["train.lr"].at(1e8, 1e9), paper["train.batch_size"].at(1e8, 1e9)) == (
        pytest.approx(3e-3),
        pytest.approx(1024 * 2048),
    )


def test_tokens_of_a_budget_and_params_as_the_recipe_counts_them():
    size, tokens = place(BASE, Recipe("r"))
    total, _ = place(BASE, Recipe("r", params="total"))
    assert total - size == BASE.data.vocab_size * SIZE.d_model
    as_tokens = replace(BASE, tokens=123e6)
    assert place(as_tokens, Recipe("r"))[1] == 123e6
    double = replace(BASE, budget=2 * BASE.budget)
    assert place(double, Recipe("r"))[1] == pytest.approx(2 * tokens)


def test_what_is_typed_or_swept_wins_over_the_law():
    study = StudyConfig("s")
    config = with_train(recipe="paper", lr=1e-4, batch_size=4)
    short = replace(config, train=replace(config.train, warmup_steps=1))
    assert finish(short, study, {"train.lr"}).train.lr == 1e-4
    assert finish(short, study, {"train.lr"}).train.batch_size == 1024 * 2048 // 64
    assert finish(short, study, set(), swept=["train.batch_size"]).train.batch_size == 4
    with pytest.raises(ConfigError) as refused:
        finish(short, study, {"train.lr", "train.batch_size"})
    assert refused.value.setting == "train.recipe"


def test_a_file_with_laws_for_each_model(tmp_path):
    laws = {"vanilla": {"train.lr": PowerLaw(0.01), "train.weight_decay": PowerLaw(0.2)}}
    write_recipe(tmp_path / "r.json", Recipe("r", models=laws))
    found = with_recipe(with_train(recipe=str(tmp_path / "r.json"))).train
    assert (found.lr, found.weight_decay, found.batch_size) == (0.01, 0.2, BASE.train.batch_size)
    other = replace(BASE, model=ModelConfig("other"))
    with pytest.raises(ConfigError, match="model=other"):
        with_recipe(replace(other, train=replace(BASE.train, recipe=str(tmp_path / "r.json"))))


@pytest.mark.parametrize(
    ("laws", "said"),
    [
        ({"train.seq_len": PowerLaw(64)}, "train.seq_len"),
        ({"train.lr": PowerLaw(1e300, a=-90)}, "train.lr="),
        ({"train.lr": PowerLaw(1e-300, a=90)}, "train.lr="),
    ],
)
def test_laws_that_give_no_number_are_refused(tmp_path, laws, said):
    write_recipe(tmp_path / "r.json", Recipe("r", laws=laws))
    with pytest.raises(ConfigError) as refused:
        with_recipe(with_train(recipe=str(tmp_path / "r.json")))
    assert refused.value.setting == "train.recipe"
    assert said in str(refused.value)


@pytest.mark.parametrize("factor", ["lr_factor", "batch_factor"])
def test_factors_are_positive(factor):
    with pytest.raises(ConfigError) as refused:
        with_recipe(with_train(**{factor: 0.0}))
    assert refused.value.setting == f"train.{factor}"


@given(st.floats(1, 1e6))
def test_a_whole_batch_is_near_and_divides_well(sequences):
    whole = whole_batch(sequences)
    odd = whole // (whole & -whole)
    assert odd in (1, 3)
    bound = math.sqrt(1.5) if sequences >= 2 else math.sqrt(2)
    assert abs(math.log(whole / sequences)) <= math.log(bound) + 1e-9
    assert whole_batch(2 * sequences) == 2 * whole or sequences < 2


@given(st.floats(1e-9, 1e3))
def test_a_rounded_rate_can_be_typed(value):
    found = rounded(value)
    assert float(f"{found:g}") == found
    assert found == pytest.approx(value, rel=1e-3)


def test_factors_scale_plain_numbers():
    found = with_recipe(with_train(lr_factor=0.5, batch_factor=0.25)).train
    assert (found.lr, found.batch_size) == (1.5e-3, 256)
    assert (found.lr_factor, found.batch_factor) == (1.0, 1.0)


def test_plans_show_the_numbers(sweep, toy, tmp_path):
    """The table names lr, batch and source; the plan file has the numbers; nothing else typed."""
    file = tmp_path / "plan.json"
    ended = sweep(
        "-m", *toy, "model=vanilla", "budget=1e9,2e9", "train.recipe=paper",
        "train.lr_factor=0.5,1", "train.batch_factor=0.001", "launch=plan",
        f"launch.plan_file={file}",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    runs = json.loads(file.read_text())["runs"]
    assert [run["lr"] for run in runs] == [1.5e-3, 3e-3, 1.5e-3, 3e-3]
    assert {run["batch_size"] for run in runs} == {32}  # 32.768 rounded
    assert {run["recipe"] for run in runs} == {"paper"}
    assert "0.0015" in ended.stdout
    assert "arXiv 2507.10524" in ended.stdout


def test_a_saved_plan_outlives_its_recipe(tmp_path):
    file = tmp_path / "r.json"
    write_recipe(file, Recipe("r", "measured", laws={"train.lr": PowerLaw(0.01)}))
    config = with_recipe(with_train(recipe=str(file)))
    assert "measured" in recipe_lines([config])[0]
    file.unlink()
    sweeps.recipe._read.cache_clear()
    [line] = recipe_lines([config])
    assert str(file) in line


def test_runs_outside_of_what_the_laws_were_fitted_on_are_counted(tmp_path):
    file = tmp_path / "r.json"
    laws = {"train.lr": PowerLaw(0.01, b=0.1)}
    size, _ = place(BASE, Recipe("r"))
    write_recipe(file, Recipe("r", laws=laws, fitted={"params": (size / 2, size * 2)}))
    inside = with_recipe(with_train(recipe=str(file)))
    large = replace(inside, size=replace(SIZE, d_ff=1000))
    lines = recipe_lines([inside, large, large])
    assert any("2 of 3" in line for line in lines)
    assert any("no trunk" in line for line in lines)


def test_wrong_recipes_are_refused_on_the_command_line(refused, toy, tmp_path):
    assert "steplaw" in refused("-m", *toy, "train.recipe=steplow", "launch=plan")
    (tmp_path / "bad.json").write_text("{")
    said = refused(*toy, f"train.recipe={tmp_path / 'bad.json'}", "launch=plan")
    assert "train.recipe" in said
    assert "train.lr_factor" in refused("-m", *toy, "train.lr_factor=-1", "launch=plan")
