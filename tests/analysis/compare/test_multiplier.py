"""k from laws and from pairs: what the models were made with, or a reason."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.cautions import Code
from analysis.commands.cli import app
from analysis.compare.equal_compute import compare
from analysis.compare.multiplier import apart, multipliers
from analysis.fits.isoflop import fit_isoflop
from benchmarks.coverage_conclusions import K, ahead
from benchmarks.coverage_isoflop import GRIDS, LAWS, MODELS, draw
from tests.analysis.conftest import study_table

ASKED = {"resamples": 100, "seed": 0}
BASE, OTHER = MODELS


def study(law: str = "symmetric", grid: str = "demo", noise: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return ahead(draw(rng, LAWS[law], GRIDS[grid], noise, 0.0), LAWS[law])


@pytest.mark.parametrize("law", ["symmetric", "gemstones", "sparse"])
@pytest.mark.parametrize("grid", ["demo", "wide", "drifting"])
def test_without_noise_both_ways_give_the_k_that_the_models_were_made_with(law, grid):
    rows = multipliers(study(law, grid), BASE, resamples=0, seed=0)
    assert {row.by for row in rows} == {"laws", "pairs"}
    assert {row.model for row in rows} == {OTHER}
    assert len(rows) == 2 * GRIDS[grid].budgets
    assert [row.multiplier for row in rows] == [pytest.approx(K, abs=1e-3)] * len(rows)
    assert all(row.interval is None for row in rows)


def test_swapped_models_have_the_inverse():
    table = study(noise=0.002)
    forth = {(r.by, r.budget): r for r in multipliers(table, BASE, **ASKED)}
    for row in multipliers(table, OTHER, **ASKED):
        other = forth[row.by, row.budget]
        assert row.multiplier * other.multiplier == pytest.approx(1, abs=0.05)
        assert row.interval[0] < row.multiplier < row.interval[1]


def test_more_noise_is_wider_and_the_truth_is_inside():
    widths = []
    for noise in (0.001, 0.004):
        rows = multipliers(study("symmetric", "seven", noise), BASE, **ASKED)
        assert np.mean([row.interval[0] <= K <= row.interval[1] for row in rows]) >= 0.5
        widths.append(np.mean([row.interval[1] - row.interval[0] for row in rows]))
    assert widths[1] > 2 * widths[0]


def test_sizes_pair_by_name_where_their_parameters_differ():
    """A routed model shares weights: one size has fewer parameters than in the baseline."""
    table = study()
    names = {params: f"size {i}" for i, params in enumerate(sorted(set(table["params"])))}
    table = table.assign(size=table["params"].map(names))
    before = [r.multiplier for r in multipliers(table, BASE, resamples=0, seed=0)]
    fewer = np.where(table["model"] == OTHER, 0.4, 1.0)
    after = multipliers(table.assign(params=table["params"] * fewer), BASE, resamples=0, seed=0)
    pairs = [row for row in after if row.by == "pairs"]
    assert [row.pairs for row in pairs] == [5, 5, 5]
    assert [row.multiplier for row in after] == pytest.approx(before, abs=2e-3)


def test_repeats_of_a_size_count_as_their_mean():
    table = study(noise=0.003)
    again = pd.concat([table, table], ignore_index=True)
    once, twice = (
        [r for r in multipliers(t, BASE, resamples=0, seed=0) if r.by == "pairs"]
        for t in (table, again)
    )
    assert [r.pairs for r in twice] == [r.pairs for r in once]
    assert [r.multiplier for r in twice] == pytest.approx([r.multiplier for r in once], rel=1e-6)


def test_sizes_that_are_not_shared_have_no_pairs():
    table = study()
    moved = table["params"] * np.where(table["model"] == OTHER, 1.1, 1.0)
    rows = multipliers(table.assign(params=moved), BASE, **ASKED)
    pairs = [row for row in rows if row.by == "pairs"]
    assert [row.pairs for row in pairs] == [0, 0, 0]
    assert all(row.multiplier is None and row.reason for row in pairs)


def test_a_law_that_the_points_do_not_hold_is_a_reason():
    table = study()
    tokens = 20 * table["params"]
    ladder = table.assign(tokens=tokens, loss=LAWS["symmetric"].loss(table["params"], tokens))
    rows = multipliers(ladder, BASE, **ASKED)
    assert rows
    assert all(row.multiplier is None and row.reason for row in rows)


def test_compare_tells_them_beside_the_minima(tmp_path):
    path = tmp_path / "points.csv"
    study(noise=0.001).drop(columns=["size", "trunk"]).to_csv(path, index=False)
    ended = CliRunner().invoke(app, ["compare", str(path), "--json", "--bootstrap", "50"])
    content = json.loads(ended.stdout)
    assert len(content["multipliers"]) == 6
    for row in content["multipliers"]:
        assert row["interval"][0] < row["multiplier"] < row["interval"][1]
    assert CliRunner().invoke(app, ["compare", str(path), "--bootstrap", "50"]).exit_code == 0


def test_a_cause_without_a_multiplier_is_said_once(tmp_path):
    table = study_table(("vanilla", "mor", "recursive"), {"3k": 3e3}, (1e10, 1e11))
    file = tmp_path / "points.csv"
    table[["model", "size", "params", "tokens", "loss", "budget"]].to_csv(file, index=False)
    done = CliRunner().invoke(app, ["compare", str(file), "--bootstrap", "0"])
    assert done.exit_code == 0, done.output
    (cause,) = [line for line in done.stdout.splitlines() if "5 parameters" in line]
    assert all(f"{model} (1e10, 1e11)" in cause for model in ("mor", "recursive"))
    (bias,) = [line for line in done.stdout.splitlines() if "Not corrected" in line]
    assert bias.count("no budget has an enclosed minimum") == 1
    assert all(model in bias for model in ("vanilla", "mor", "recursive"))


def test_ways_whose_intervals_do_not_meet_are_named():
    table = study(noise=0.001)
    done = compare(fit_isoflop(table, resamples=100), BASE)
    others = multipliers(table, BASE, **ASKED)
    assert apart(done, others) == []
    [row] = [one for one in others if one.by == "pairs" and one.budget == 1e18]
    moved = replace(row, multiplier=9.0, interval=(8.0, 10.0))
    [said] = apart(done, [moved if one is row else one for one in others])
    assert (said.code, said.model) == (Code.MULTIPLIERS_APART, OTHER)
    assert "pairs 9 [8, 10]" in said.text
