"""`python -m analysis tune` as a user types it: tables, JSON, the recipe file, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from ledger.recipe import read_recipe
from tests.analysis.fits.tuning.studies import tune_study


def nested(settings: dict[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        node = found
        for name in path:
            node = node.setdefault(name, {})  # type: ignore[assignment]
        node[last] = value
    return found


def as_study(folder: Path, table: pd.DataFrame, name: str = "tune", **extra: object) -> Path:
    """Results of the runs, and `studies/<name>/plan.json`."""
    for row in table.to_dict("records"):
        run = folder / "runs" / row["run_id"]
        run.mkdir(parents=True)
        result = {
            **{"schema": 1, "run_id": row["run_id"], "model": row["model"], "size": row["size"]},
            **{"budget": row["budget"], "convention": "paper", "seed": 0, "status": "done"},
            **{"n_params": 2 * row["params"], "n_params_nonembedding": row["params"]},
            **{"tokens": row["tokens"], "loss": {"val_nll_causal": row["loss"]}},
            **{"data": {"fingerprint": "f00d"}, "settings": nested(row["settings"]), **extra},
        }
        (run / "result.json").write_text(json.dumps(result))
    study = folder / "studies" / name
    study.mkdir(parents=True)
    runs = [{"run_id": run_id} for run_id in table["run_id"]]
    (study / "plan.json").write_text(json.dumps({"schema": 1, "runs": runs, "runs_dir": "runs"}))
    return study


@pytest.fixture
def tune():
    def run(*arguments: object):
        return CliRunner().invoke(app, ["tune", *map(str, arguments)])

    return run


def test_a_study_becomes_a_recipe(tune, tmp_path):
    study = as_study(tmp_path, tune_study(0.001, models=("vanilla", "mor")))
    ended = tune(study, "--json")
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert told["over"] == ["train.lr"]
    assert set(told["models"]) == {"vanilla", "mor"}
    law = told["models"]["mor"]["laws"]["train.lr"]
    assert law["a_interval"][0] <= law["a"] <= law["a_interval"][1]
    [optimum, *_] = told["models"]["mor"]["optima"]
    low, high = optimum["intervals"]["train.lr"]
    assert optimum["tried"]["train.lr"][0] < low < optimum["values"]["train.lr"] < high
    recipe = read_recipe(study / "recipe.json")
    assert recipe.of("mor")["train.lr"].c == pytest.approx(law["c"])
    assert set(recipe.tuning) == {"vanilla", "mor"}
    assert "train.recipe=" in told["next"]
    assert recipe.params == "nonembedding"
    assert tune(study, "--params", "total", "--out", tmp_path / "total.json").exit_code == 0
    assert read_recipe(tmp_path / "total.json").params == "total"
    tables = tune(study, "--out", tmp_path / "other" / "r.json").output
    assert "enclosed" in tables
    assert read_recipe(tmp_path / "other" / "r.json").models == recipe.models


def test_what_is_refused_leaves_nothing_behind(tune, tmp_path):
    study = as_study(tmp_path, tune_study(centre=1e-5))
    for arguments in (
        (),
        ("--over", "train.batch_size"),
        ("--over", "train.nonsense"),
        ("--where", "train.lr"),
        ("--where", "train.lr=1"),
        ("--out", tmp_path),
    ):
        ended = tune(study, *arguments)
        assert ended.exit_code == 2, ended.output
        assert len(ended.stderr.strip().splitlines()) == 1
    assert not (study / "recipe.json").exists()


def test_points_without_settings_are_refused(tune, tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("params,tokens,loss,budget\n1e6,2e8,3.0,1.2e15\n2e6,1e8,2.9,1.2e15\n")
    ended = tune(file)
    assert ended.exit_code == 2
    assert "settings" in ended.stderr


def test_runs_that_follow_a_recipe_are_one_curve(tmp_path):
    from analysis.points.load import load_points

    table = tune_study(factors=(1.0,))
    assert table["settings"].map(lambda s: s["train.lr"]).nunique() > 1
    study = as_study(tmp_path, table, recipe="/somewhere/r.json")
    assert load_points(study).table["curve"].isna().all()
    swept = as_study(tmp_path / "swept", tune_study(factors=(0.5, 1.0)), recipe="/somewhere/r.json")
    assert load_points(swept).table["curve"].nunique() == 6
