"""Designs judged against what really happens: studies simulated and refitted one by one."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.design.grid import numbers, typed_grid
from analysis.design.law import PUBLISHED, half_width, information
from analysis.design.outlook import outlook, vertices_of
from analysis.errors import AnalysisError
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.minimum import Status, fit_minimum
from analysis.points.table import tidy
from tests.analysis.laws import law_table, refit

GOOD = ("30M,60M,120M,240M,480M,960M", "2e18,8e18,3.2e19")
A = PUBLISHED.beta / (PUBLISHED.alpha + PUBLISHED.beta)


def studies(grid: pd.DataFrame, noise: float, number: int, seed: int = 5):
    """Simulated studies as tables of points, by a path of their own."""
    rng = np.random.default_rng(seed)
    params, tokens = grid["params"].to_numpy(), grid["tokens"].to_numpy()
    term_n, term_d = params**-PUBLISHED.alpha, tokens**-PUBLISHED.beta
    clean = PUBLISHED.E + PUBLISHED.A * term_n + PUBLISHED.B * term_d
    for _ in range(number):
        yield tidy(grid.assign(loss=clean + noise * rng.standard_normal(len(grid))))


def half(ends) -> float:
    return 0.5 * (ends[1] - ends[0])


@pytest.mark.parametrize("sizes", [GOOD[0], "20M,40M,60M,80M,120M,160M,240M,320M,480M,960M"])
def test_the_interval_matches_the_spread_of_refits(sizes):
    grid = typed_grid(sizes, GOOD[1], 1)
    told = outlook("grid", grid, PUBLISHED, 0.004, 4000, 0)
    refits = [
        fit_isoflop(table, resamples=0).models["grid"].params_law.exponent
        for table in studies(grid, 0.004, 120)
    ]
    exponents = np.array([a for a in refits if a is not None])
    assert told.exponent == pytest.approx(exponents.mean(), abs=0.01)
    # The standard error of a spread from 120 draws is 6.5 %; percentiles are a little looser.
    assert half(told.interval) == pytest.approx(1.96 * exponents.std(), rel=0.25)
    assert told.no_exponent == pytest.approx(1 - len(exponents) / 120, abs=0.03)


@pytest.mark.parametrize(
    "sizes", ["60M,120M,240M,480M", "20M,40M,60M,80M,120M,160M,240M,320M,960M"]
)
def test_every_simulated_minimum_is_the_one_that_isoflop_finds(sizes):
    grid = typed_grid(sizes, "5e18", 2).sort_values("params")
    tables = list(studies(grid, 0.2, 150))
    losses = np.array([table["loss"] for table in tables])
    vertex, lowest = vertices_of(grid["params"].to_numpy(), losses)
    assert 0 < np.isnan(vertex).sum() < 150
    sizes_tested = np.unique(grid["params"])
    for table, at, best in zip(tables, vertex, lowest, strict=True):
        found = fit_minimum(table)
        assert (found.status is Status.INTERIOR) == np.isfinite(at)
        assert found.lowest_params == sizes_tested[best]
        if np.isfinite(at):
            assert np.log(found.params) == pytest.approx(at, abs=1e-9)


def test_approach_3_is_as_wide_as_its_refits():
    grid = typed_grid(*GOOD, 2)
    noise = 0.0005
    params, tokens = grid["params"].to_numpy(float), grid["tokens"].to_numpy(float)
    told = information(PUBLISHED, params, tokens, noise).sum(axis=0)
    losses = np.array([table["loss"] for table in studies(grid, noise, 400)], float)
    found = refit(params, tokens, losses, vars(PUBLISHED))
    assert np.mean(found) == pytest.approx(A, abs=0.01)
    assert half_width(PUBLISHED, told) == pytest.approx(1.96 * np.std(found), rel=0.15)


def test_a_grid_on_one_side_of_the_minimum_has_a_high_risk_of_an_edge():
    # Best sizes are 115M to 500M here.
    above = outlook("grid", typed_grid("1B,2B,4B,8B", "2e18,5e18", 1), PUBLISHED, 0.003, 500, 0)
    for budget in above.budgets:
        assert not budget.inside
        assert budget.smallest_risk == budget.risk > 0.99
    assert above.no_exponent > 0.99
    assert above.exponent is None
    below = outlook("grid", typed_grid("5M,10M,20M,40M", "2e18,5e18", 1), PUBLISHED, 0.003, 500, 0)
    assert all(budget.largest_risk > 0.99 for budget in below.budgets)
    inside = outlook("grid", typed_grid(*GOOD, 1), PUBLISHED, 0.003, 500, 0)
    assert all(budget.risk < 0.01 and budget.inside for budget in inside.budgets)
    edge = outlook("grid", typed_grid("115M,230M,460M,920M", "2e18", 1), PUBLISHED, 0.003, 2000, 0)
    assert edge.budgets[0].smallest_risk > 0.3


@pytest.mark.parametrize("sizes", ["42M", "1B", "1K,2K,4K", "30M,60M,120M,240M", "90B,200B"])
def test_the_best_size_is_the_laws_whatever_the_grid(sizes):
    grid = typed_grid(sizes, "2e18", 1)
    (budget,) = outlook("grid", grid, PUBLISHED, 0.003, 100, 0).budgets
    around = budget.optimum * np.geomspace(0.99, 1.01, 201)
    losses = PUBLISHED.loss(around, 2e18 / (6 * around))
    assert budget.optimum == pytest.approx(around[losses.argmin()], rel=2e-4)
    assert budget.inside == (grid["params"].min() < budget.optimum < grid["params"].max())


def test_sizes_of_the_same_tokens_stand_for_their_mean_compute():
    grid = typed_grid("42M,80M", "2e18", 1).assign(tokens=4e9)
    (budget,) = outlook("grid", grid, PUBLISHED, 0.003, 100, 0).budgets
    same = typed_grid("42M", f"{6 * 4e9 * np.sqrt(42e6 * 80e6):.12e}", 1)
    (alone,) = outlook("grid", same, PUBLISHED, 0.003, 100, 0).budgets
    assert budget.optimum == pytest.approx(alone.optimum)


def test_more_seeds_and_less_noise_narrow_the_interval():
    def width(seeds: int, noise: float) -> tuple[float, float]:
        done = outlook("grid", typed_grid(*GOOD, seeds), PUBLISHED, noise, 4000, 0)
        return half(done.interval), done.law_half_width

    for one, four, quarter in zip(width(1, 0.004), width(4, 0.004), width(1, 0.002), strict=True):
        assert four == pytest.approx(one / 2, rel=0.1)
        assert quarter == pytest.approx(one / 2, rel=0.1)


def test_one_budget_knows_no_exponent():
    done = outlook("grid", typed_grid("60M,120M,240M,480M", "5e18", 1), PUBLISHED, 0.003, 200, 0)
    assert (done.exponent, done.interval, done.true_exponent) == (None, None, None)
    assert done.law_half_width is None


def test_numbers_are_read_as_people_write_them():
    assert numbers("1.7B, 42m,950", "--sizes") == [950, 42e6, 1.7e9]
    assert numbers("2e18", "--budgets") == [2e18]
    for wrong in ("", "42X", "-1", "0", "nan", "1e999"):
        with pytest.raises(AnalysisError, match="--sizes holds"):
            numbers(wrong, "--sizes")


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["design", *map(str, arguments)])


def plan_file(tmp_path: Path, model: str = "vanilla") -> Path:
    grid = typed_grid(*GOOD, 1).rename(columns={"params": "n_params_nonembedding"})
    runs = grid.assign(model=model, seed=0, gpu_hours=1.5, run_id=[f"r{i}" for i in grid.index])
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"schema": 1, "gpu": "h100", "runs": runs.to_dict("records")}))
    return file


def test_a_plan_is_judged_as_its_grid_typed(tmp_path):
    typed = json.loads(invoke("--sizes", GOOD[0], "--budgets", GOOD[1], "--json").stdout)
    planned = json.loads(invoke("--plan", plan_file(tmp_path), "--json").stdout)
    assert planned["grids"][0]["interval"] == typed["grids"][0]["interval"]
    assert planned["grids"][0]["hours"] == pytest.approx(18 * 1.5)
    assert planned["grids"][0]["unit"] == "h100 GPU-hours"
    assert typed["grids"][0]["noise"] == 0.003


def test_the_law_of_own_points_brings_its_noise(tmp_path):
    points = tmp_path / "points.csv"
    law_table(noise=0.001).assign(model="vanilla").to_csv(points, index=False)
    found = json.loads(invoke("--plan", plan_file(tmp_path), "--law", points, "--json").stdout)
    grid = found["grids"][0]
    assert grid["law"]["alpha"] == pytest.approx(0.34, abs=0.02)
    assert grid["noise"] == pytest.approx(0.001 * 2.6, rel=0.3)  # losses are about 2.6
    other = invoke("--plan", plan_file(tmp_path, "mor"), "--law", points)
    assert other.exit_code == 2
    assert "holds no points of mor" in other.stderr
    pd.read_csv(points).assign(loss=3.0).to_csv(points, index=False)
    flat = invoke("--plan", plan_file(tmp_path), "--law", points)
    assert (flat.exit_code, flat.stdout, flat.stderr.count("\n")) == (2, "", 1)


def test_mistakes_are_one_sentence(tmp_path):
    for arguments, said in (
        ((), "design needs a grid"),
        (("--plan", plan_file(tmp_path), "--sizes", "1M"), "leave --sizes"),
        (("--sizes", "1M,x", "--budgets", "1e18"), "'x'"),
        (("--plan", tmp_path / "none.json"), "none.json"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert said in result.stderr
        assert result.stderr.count("\n") == 1


def test_far_from_the_laws_own_sizes_it_says_so():
    result = invoke("--sizes", "5K,10K,20K,40K", "--budgets", "1e10,4e10")
    assert "a guess, out there" in result.stdout
