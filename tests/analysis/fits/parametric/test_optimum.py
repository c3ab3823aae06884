import numpy as np
import pandas as pd
import pytest

from analysis.cautions import Code
from analysis.errors import AnalysisError
from analysis.fits.parametric.lawfit import Asked, report
from analysis.fits.parametric.laws import Chinchilla
from analysis.fits.parametric.optimum import (
    GRID_STARTS,
    POLISHED,
    best_starts,
    fit_law,
    make_starts,
)
from analysis.fits.parametric.solver import Problem, polish, score
from analysis.fits.resample import group_points, intervals
from analysis.points.load import load_points
from analysis.points.table import Wanted
from tests.analysis.laws import TRUTH, law_table

PUBLISHED = {"A": 477.83, "B": 2143.4, "E": 1.81722, "alpha": 0.34731, "beta": 0.36717}
PUBLISHED_INTERVALS = {
    "A": (285, 744),
    "B": (1042, 5810),
    "E": (1.769, 1.871),
    "alpha": (0.317, 0.373),
    "beta": (0.331, 0.415),
}


def fit(table: pd.DataFrame, starts: int = 300):
    problem = Problem(Chinchilla.of(table), np.log(table["loss"].to_numpy(float)))
    return fit_law(problem, starts)


@pytest.fixture
def kept(public_points) -> pd.DataFrame:
    table = pd.read_csv(public_points / "chinchilla_245.csv")
    return table[table["kept"]].assign(trunk=None, budget=np.nan)


def test_an_exact_law_is_recovered():
    values = fit(law_table()).values
    for name, value in TRUTH.items():
        assert values[name] == pytest.approx(value, rel=1e-5), name
    assert values["a"] == pytest.approx(TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"]), rel=1e-6)
    assert values["a"] + values["b"] == pytest.approx(1)


def test_the_unit_of_params_moves_only_its_coefficient():
    table = law_table(0.005)
    plain, thousands = fit(table).values, fit(table.assign(params=table["params"] / 1e3)).values
    for name in ("alpha", "B", "beta", "E"):
        assert thousands[name] == pytest.approx(plain[name], rel=1e-6), name
    assert thousands["A"] == pytest.approx(plain["A"] / 1e3 ** plain["alpha"], rel=1e-5)


def test_the_order_of_rows_does_not_matter():
    table = law_table(0.005)
    shuffled = table.sample(frac=1, random_state=1)
    assert fit(shuffled).values["alpha"] == pytest.approx(fit(table).values["alpha"], rel=1e-8)


def test_the_published_grid_has_4500_different_starts_and_others_are_drawn_in_its_box():
    law = Chinchilla.of(law_table())
    grid = make_starts(law, GRID_STARTS)
    assert len(np.unique(grid, axis=0)) == 4500
    drawn = make_starts(law, 77)
    assert drawn.shape == (77, 5)
    assert (drawn >= grid.min(axis=0)).all()
    assert (drawn <= grid.max(axis=0)).all()


def test_the_certificate_counts_what_was_done():
    sure = fit(law_table(0.01), starts=40).certificate
    assert (sure.starts, sure.polished) == (40, 40)
    assert 0 < sure.agree <= 1
    assert sure.basins >= 1
    assert sure.gradient_norm < 1e-7


@pytest.mark.parametrize("raw", [False, True])
def test_starts_that_have_become_one_are_polished_once_and_counted_as_often(raw):
    law = Chinchilla.of(table := law_table(0.01))
    problem = Problem(law, np.log(table["loss"].to_numpy()), raw=raw)
    found = fit_law(problem, GRID_STARTS)
    best = best_starts(problem, make_starts(law, GRID_STARTS))
    every = polish(problem, best)
    sure = found.certificate
    assert sure.distinct == len(np.unique(best, axis=0)) < sure.polished == len(best)
    assert sure.objective == pytest.approx(every.objective.min(), rel=1e-6)
    agreeing = every.objective <= every.objective.min() * (1 + 1e-6)
    assert sure.agree == agreeing.mean()


def test_points_with_one_loss_are_refused():
    table = law_table().assign(loss=2.5)
    with pytest.raises(AnalysisError, match=r"All 40 points have one loss, 2\.5"):
        report(Chinchilla.of(table), table, Asked(starts=50, resamples=0))
    with pytest.raises(AnalysisError, match=r"All 40 points have one loss, 2\.5"):
        fit_law(Problem(Chinchilla.of(table), np.log(table["loss"].to_numpy(float))))


def test_one_size_says_that_nothing_can_be_told_apart():
    table = law_table(0.003).assign(params=1e8)
    done = report(Chinchilla.of(table), table, Asked(starts=200, resamples=0))
    assert done.fit.certificate.condition > 1e8
    assert any(warning.code is Code.WEAKLY_IDENTIFIED for warning in done.warnings)


@pytest.mark.parametrize("rows", [1, 4, 5])
def test_no_more_points_than_parameters_is_refused(rows):
    with pytest.raises(AnalysisError, match=r"5 parameters and there (is|are) only") as caught:
        fit(law_table().head(rows))
    assert str(caught.value).count(".") == 1


def test_the_replication_of_chinchilla_is_met(kept):
    found = fit(kept, GRID_STARTS)
    assert found.certificate.objective == pytest.approx(0.001018274018, abs=1e-9)
    for name, value in PUBLISHED.items():
        assert found.values[name] == pytest.approx(value, rel=1e-5), name
    assert found.values["a"] == pytest.approx(0.513, abs=0.002)
    assert found.certificate.gradient_norm < 1e-9
    assert found.certificate.agree > 0.1


def test_the_published_intervals_are_ours(kept):
    found = fit(kept, GRID_STARTS)
    ours = intervals(found, group_points(kept, "rows"), 1000, 0).of
    for name, (low, high) in PUBLISHED_INTERVALS.items():
        # Two bootstraps of the same points: ends within a tenth of the interval's width.
        assert ours[name] == pytest.approx((low, high), abs=0.1 * (high - low)), name
    assert ours["a"] == pytest.approx((0.513 - 0.039, 0.513 + 0.039), abs=0.008)


def test_the_five_dropped_rows_do_what_was_published(public_points):
    values = fit(pd.read_csv(public_points / "chinchilla_245.csv"), GRID_STARTS).values
    assert values["B"] == pytest.approx(12846, rel=0.01)
    assert values["a"] == pytest.approx(0.565, abs=0.002)


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("gemstones_cool_end", 0.0019640865),
        ("gemstones_hot_sampled_like_chinchilla", 0.0002173794),
    ],
)
def test_no_published_optimum_is_lower_than_ours(public_points, name, objective):
    points = load_points(public_points / f"{name}.csv", wanted=Wanted(("params", "tokens", "loss")))
    assert fit(points.table, GRID_STARTS).certificate.objective <= objective * 1.00001


def test_each_budget_is_left_out_and_the_top_is_predicted():
    done = report(Chinchilla.of(t := law_table(0.002)), t, Asked(starts=300, resamples=0))
    assert [left.n_points for left in done.hold_out.budgets] == [8] * 5
    assert done.hold_out.top == done.hold_out.budgets[-1]
    assert 0 < done.hold_out.top.rms < 0.01


def test_an_extrapolation_that_fails_shows():
    table = law_table(0.001)
    top = table["budget"] == table["budget"].max()
    bent = table.assign(loss=table["loss"].where(~top, 1.1 * table["loss"]))
    done = report(Chinchilla.of(bent), bent, Asked(starts=300, resamples=0))
    assert done.hold_out.top.mean == pytest.approx(1 / 1.1 - 1, abs=0.01)


def test_without_budgets_the_tenth_with_the_most_compute_is_left_out():
    table = law_table(0.002).assign(budget=np.nan)
    held = report(Chinchilla.of(table), table, Asked(starts=300, resamples=0)).hold_out
    assert held.budgets == ()
    assert (held.top.n_points, held.top_is_a_budget) == (4, False)
    few = table.head(6)
    assert report(Chinchilla.of(few), few, Asked(starts=50, resamples=0)).hold_out.top.rms is None


def test_a_subset_of_points_chooses_the_starts_that_all_points_would():
    table = law_table(0.005, sizes=24, budgets=10)
    problem = Problem(Chinchilla.of(table), np.log(table["loss"].to_numpy(float)))
    tried = make_starts(problem.law, GRID_STARTS)
    scores = score(problem, tried)
    wanted = {tuple(row[[1, 3]]) for row in tried[np.argsort(scores, kind="stable")[:POLISHED]]}
    assert {tuple(row[[1, 3]]) for row in best_starts(problem, tried)} == wanted
