"""Budgets of a CSV where a fit can do without them: a law, an envelope of curves."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.cautions import Code
from analysis.fits.envelope import fit_envelope
from analysis.points.curves import from_points
from analysis.points.load import load_points
from analysis.points.table import LAW_NUMBERS, NUMBERS, PointSet, Wanted
from tests.analysis.conftest import study_table
from tests.analysis.laws import TRUTH, law_table


def load(table: pd.DataFrame, folder: Path, numbers: tuple[str, ...] = LAW_NUMBERS) -> PointSet:
    path = folder / "points.csv"
    table.to_csv(path, index=False)
    return load_points(path, wanted=Wanted(numbers))


def achieved(budgets: int = 4, seed: int = 0) -> pd.DataFrame:
    """A grid whose budgets are off their planned ones by up to 0.4 %."""
    table = law_table(0.003, budgets=budgets).drop(columns="trunk")
    off = np.random.default_rng(seed).uniform(-0.004, 0.004, len(table))
    return table.assign(budget=table["budget"] * (1 + off))


def codes(points: PointSet) -> list[Code]:
    return [warning.code for warning in points.warnings]


@pytest.mark.parametrize("budgets", [1, 4])
def test_achieved_budgets_are_grouped_for_every_fit(tmp_path, budgets):
    table = achieved(budgets)
    law, isoflop = load(table, tmp_path), load(table, tmp_path, NUMBERS)
    assert codes(law) == codes(isoflop) == [Code.GROUPED_BUDGETS]
    assert law.table["budget"].nunique() == budgets
    assert law.table["budget"].tolist() == isoflop.table["budget"].tolist()


def test_rows_without_a_budget_do_not_keep_the_others_from_their_groups(tmp_path):
    table = achieved()
    table.loc[::5, "budget"] = np.nan
    found = load(table, tmp_path).table["budget"]
    assert found.isna().tolist() == table["budget"].isna().tolist()
    assert found.dropna().nunique() == 4


def test_no_budget_at_all_is_no_group(tmp_path):
    points = load(achieved().assign(budget=np.nan), tmp_path)
    assert points.table["budget"].isna().all()
    assert codes(points) == []


@pytest.mark.parametrize("step", [1.01, 1.3])
def test_runs_spread_over_compute_keep_their_budgets(tmp_path, step):
    """Without a gap between neighbours, and with gaps except for two that happen to be close."""
    table = law_table(0.003).drop(columns="trunk")
    budgets = 1e18 * step ** np.arange(len(table))
    budgets[1] = 1.005 * budgets[0]
    table = table.assign(budget=budgets, tokens=budgets / 6 / table["params"])
    points = load(table, tmp_path)
    assert points.table["budget"].tolist() == pytest.approx(budgets.tolist(), rel=1e-15)
    assert codes(points) == []


@pytest.mark.parametrize("cell", ["0", "-5", "-1e18", "inf", "1e400", "abc"])
def test_a_budget_that_is_none_is_left_out_by_its_line(tmp_path, cell):
    table = law_table(0.003).drop(columns="trunk")
    budgets = [cell if row in (2, 7) else repr(b) for row, b in enumerate(table["budget"].tolist())]
    points = load(table.assign(budget=budgets), tmp_path)
    assert len(points.table) == len(table) - 2
    assert points.table["loss"].tolist() == table["loss"].drop(index=[2, 7]).tolist()
    assert codes(points) == [Code.UNUSABLE_ROWS]
    assert f"line 4 (budget {cell}), line 9 (budget {cell})" in str(points.warnings[0])


@pytest.mark.parametrize("cell", ["", "-", "nan", "NaN", "N/A", "NA", "None", "null"])
def test_a_cell_without_a_budget_keeps_its_row_where_a_fit_needs_none(tmp_path, cell):
    table = law_table(0.003).drop(columns="trunk")
    budgets = [cell if row == 2 else repr(b) for row, b in enumerate(table["budget"].tolist())]
    points = load(table.assign(budget=budgets), tmp_path)
    assert np.flatnonzero(points.table["budget"].isna()).tolist() == [2]
    assert codes(points) == []
    needed = load(table.assign(budget=budgets), tmp_path, NUMBERS)
    assert len(needed.table) == len(table) - 1
    assert codes(needed) == [Code.UNUSABLE_ROWS]


@pytest.mark.filterwarnings("error")
def test_an_envelope_of_bad_budgets_is_that_of_the_other_rows(tmp_path):
    sizes = {f"{n}m": n * 1e6 for n in (30, 60, 120, 240, 480, 960)}
    table = study_table(("vanilla",), sizes, budgets=(1e18, 4e18, 1.6e19, 6.4e19))
    table["loss"] = TRUTH["E"] + TRUTH["A"] * table["params"] ** -TRUTH["alpha"]
    table["loss"] += TRUTH["B"] * table["tokens"] ** -TRUTH["beta"]
    exponents = []
    for rows in (table.assign(budget=table["budget"].mask(table.index == 2, -5)), table.drop(2)):
        found = fit_envelope("vanilla", from_points(load(rows, tmp_path).table), resamples=0)
        exponents.append(found.params_law.exponent)
    assert 0.3 < exponents[0] == exponents[1] < 0.7
