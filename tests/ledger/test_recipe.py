"""Recipe files: laws, what is refused, what a model's own laws replace."""

from __future__ import annotations

import json

import pytest

from ledger.errors import UserError
from ledger.recipe import PowerLaw, Recipe, read_recipe, write_recipe


def test_a_recipe_is_read_as_it_was_written(tmp_path):
    recipe = Recipe(
        "mine",
        "measured",
        "total",
        {"train.lr": PowerLaw(0.8, 0.3, -0.1)},
        {"mor": {"train.lr": PowerLaw(0.5), "train.batch_size": PowerLaw(4096, b=-0.5)}},
        {"params": (1e4, 1e6)},
    )
    write_recipe(tmp_path / "r.json", recipe)
    assert read_recipe(tmp_path / "r.json") == recipe


def test_a_law_is_a_power_of_size_and_tokens():
    law = PowerLaw(2.0, a=0.5, b=-0.25)
    assert law.at(100, 16) == pytest.approx(2 * 100**-0.5 * 16**0.25)


def test_a_models_own_law_replaces_that_of_all():
    every, own = PowerLaw(1.0), PowerLaw(2.0)
    recipe = Recipe("r", laws={"x": every, "y": every}, models={"mor": {"x": own}})
    assert recipe.of("mor") == {"x": own, "y": every}
    assert recipe.of("vanilla") == {"x": every, "y": every}


@pytest.mark.parametrize(
    ("values", "at_fault"),
    [
        ([], "not a recipe"),
        ({"name": "x"}, "not a recipe"),
        ({"laws": {}}, "no law"),
        ({"laws": {"train.lr": 3e-3}}, "laws.train.lr"),
        ({"laws": {"train.lr": {"c": 0}}}, "laws.train.lr.c"),
        ({"laws": {"train.lr": {"a": 1}}}, "laws.train.lr.c"),
        ({"laws": {"train.lr": {"c": 1, "a": "x"}}}, "laws.train.lr.a"),
        ({"laws": {"train.lr": {"c": 1, "alpha": 1}}}, "laws.train.lr.alpha"),
        ({"laws": {"train.lr": {"c": True}}}, "laws.train.lr.c"),
        ({"laws": {"train.lr": {"c": 1}}, "params": "all"}, "params"),
        ({"laws": {"train.lr": {"c": 1}}, "fitted": {"params": 3}}, "fitted.params"),
        ({"laws": {"train.lr": {"c": 1}}, "schema": 2}, "schema"),
        ({"laws": {"train.lr": {"c": 1}}, "modles": {}}, "modles"),
    ],
)
def test_what_is_no_recipe_is_refused_by_its_key(tmp_path, values, at_fault):
    file = tmp_path / "r.json"
    file.write_text(json.dumps(values))
    with pytest.raises(UserError) as refused:
        read_recipe(file)
    assert at_fault in str(refused.value)
    assert str(file) in str(refused.value)
