"""Budgets of a CSV where a fit can do without them: a law, an envelope of curves."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.cautions import Code
from analysis.points.load import load_points
from analysis.points.table import LAW_NUMBERS, NUMBERS, PointSet, Wanted
from tests.analysis.laws import law_table


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
