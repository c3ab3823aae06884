import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cautions import Code
from analysis.fits.isoflop import fit_isoflop, fit_power_law
from analysis.fits.minimum import Status, fit_minimum
from analysis.points.load import load_points
from analysis.reference import load_table9


def at_budget(params, loss, budget=1e11):
    params = np.asarray(params, float)
    return pd.DataFrame(
        {"budget": budget, "params": params, "tokens": budget / (6 * params), "loss": loss}
    )


GRID = np.array([1e4, 3e4, 1e5, 3e5, 1e6])


@settings(max_examples=50, deadline=None)
@given(
    log_vertex=st.floats(np.log(3.5e4), np.log(2.8e5)),
    bend=st.floats(0.01, 0.3),
    floor=st.floats(1.0, 4.0),
)
def test_the_vertex_of_an_exact_parabola_is_recovered(log_vertex, bend, floor):
    minimum = fit_minimum(at_budget(GRID, floor + bend * (np.log(GRID) - log_vertex) ** 2))
    assert minimum.status is Status.INTERIOR
    assert minimum.params == pytest.approx(np.exp(log_vertex), rel=1e-6)
    assert minimum.loss == pytest.approx(floor, abs=1e-8)
    assert minimum.tokens == pytest.approx(1e11 / (6 * np.exp(log_vertex)), rel=1e-6)
    assert minimum.n_points == 5


@pytest.mark.parametrize("exponent", [0.3, 0.5, 0.7])
def test_a_known_exponent_is_recovered(make_table, exponent):
    result = fit_isoflop(make_table(exponent=exponent), resamples=50)
    for frontier in result.models.values():
        assert frontier.params_law.exponent == pytest.approx(exponent, abs=1e-9)
        assert frontier.tokens_law.exponent == pytest.approx(1 - exponent, abs=1e-9)
        assert frontier.params_law.coefficient == pytest.approx(1e5 / 1e11**exponent, rel=1e-6)


def test_row_order_does_not_matter_and_other_models_only_tell_the_noise(make_table):
    table = make_table(noise=0.01, seeds=(0, 1))
    both = fit_isoflop(table)
    shuffled = fit_isoflop(table.sample(frac=1, random_state=3)).models["mor"]
    assert shuffled.params_law == both.models["mor"].params_law
    assert shuffled.tokens_law == both.models["mor"].tokens_law
    alone = fit_isoflop(table[table["model"] == "mor"])
    # The estimates of a model are its own; its intervals rest on the noise of all of them.
    assert alone.models["mor"].params_law.exponent == both.models["mor"].params_law.exponent
    assert alone.models["mor"].tokens_law.coefficient == both.models["mor"].tokens_law.coefficient
    assert both.noise.degrees_of_freedom == 2 * alone.noise.degrees_of_freedom


def test_a_loss_offset_moves_no_minimum(make_table):
    table = make_table(noise=0.01)
    before = fit_isoflop(table, resamples=100).models["mor"].params_law
    after = (
        fit_isoflop(table.assign(loss=table["loss"] + 5), resamples=100).models["mor"].params_law
    )
    assert after.exponent == pytest.approx(before.exponent, rel=1e-9)
    # Noise is pooled as a share of the loss, which an offset changes a little between budgets.
    assert after.interval == pytest.approx(before.interval, rel=0.01)


@pytest.mark.parametrize(
    ("loss", "end"), [([1, 2, 3.1, 4.3, 5.6], "smallest"), ([5.6, 4.3, 3.1, 2, 1], "largest")]
)
def test_a_lowest_size_at_the_end_is_an_edge(loss, end):
    minimum = fit_minimum(at_budget(GRID, loss))
    assert minimum.status is Status.EDGE
    assert end in minimum.reason
    assert minimum.params is None
    assert minimum.lowest_loss == 1


def test_a_vertex_outside_its_window_is_an_edge():
    # The lowest size is inside the grid, the parabola still falls at its end.
    minimum = fit_minimum(at_budget(GRID, [6.0, 4.6, 3.4, 2.3, 2.31]))
    assert minimum.status is Status.EDGE
    assert "above" in minimum.reason


@pytest.mark.parametrize("loss", [[1, 2, 2.5, 2, 1], [3, 3, 3, 3, 3], [5, 4, 3, 2, 1.01]])
def test_a_curve_without_a_bottom_is_no_minimum(loss):
    minimum = fit_minimum(at_budget(GRID, np.array(loss, float)))
    assert minimum.status in (Status.NOT_CONVEX, Status.EDGE)
    assert minimum.params is None


def test_concave_is_named():
    assert fit_minimum(at_budget(GRID, [1, 2, 2.5, 2, 1.5])).status is Status.NOT_CONVEX
    assert fit_minimum(at_budget(GRID, [3.0] * 5)).status is Status.NOT_CONVEX


def test_two_sizes_are_too_few_however_many_seeds():
    minimum = fit_minimum(at_budget([1e4, 1e4, 1e5, 1e5], [3, 3.1, 2.9, 3]))
    assert minimum.status is Status.TOO_FEW
    assert minimum.n_points == 4


@pytest.mark.parametrize(("window", "status"), [(1, Status.NARROW), (2, Status.EDGE)])
def test_a_window_that_leaves_two_of_the_sizes_is_named(window, status):
    minimum = fit_minimum(at_budget(GRID, [1, 2, 3.5, 5, 7]), window=window)
    assert minimum.status is status
    assert minimum.n_points == window + 1
    if status is Status.NARROW:
        for fact in ("--window 1", f"2 of {len(GRID)} sizes", "--window 2"):
            assert fact in minimum.reason


def test_seeds_of_one_size_are_averaged_before_the_lowest_is_sought():
    # One lucky seed at the end of the grid is no edge.
    params = [1e4, 1e4, 1e5, 1e5, 1e6, 1e6]
    assert fit_minimum(at_budget(params, [3, 3, 2.5, 2.5, 2.4, 3])).status is Status.INTERIOR


def test_the_window_keeps_the_nearest_sizes():
    grid = np.geomspace(1e4, 1e7, 13)
    # A parabola near 1e5 and a wall far from it.
    loss = 2 + 0.05 * np.log(grid / 1e5) ** 2 + np.where(grid > 2e6, 5.0, 0.0)
    narrow = fit_minimum(at_budget(grid, loss))
    assert narrow.n_points == 7
    assert narrow.params == pytest.approx(1e5, rel=1e-6)
    assert fit_minimum(at_budget(grid, loss), window=1).n_points == 3
    assert fit_minimum(at_budget(grid, loss), window=12).params != pytest.approx(1e5, rel=0.1)


def test_only_interior_minima_enter_the_law(make_table):
    table = make_table(models=("mor",), budgets=(1e10, 1e11, 1e12, 1e18))
    frontier = fit_isoflop(table, resamples=0).models["mor"]
    assert [m.status for m in frontier.minima] == ["interior"] * 3 + ["edge"]
    assert frontier.params_law.exponent == pytest.approx(0.5, abs=1e-9)
    assert any("1e18 has no minimum (edge)" in warning.text for warning in frontier.warnings)


def test_one_interior_minimum_gives_no_exponent_and_says_so(make_table):
    frontier = fit_isoflop(make_table(models=("mor",), budgets=(1e11, 1e18))).models["mor"]
    assert frontier.params_law.exponent is None
    assert frontier.tokens_law.exponent is None
    assert "No exponent: 1 of 2 budgets" in frontier.warnings[-1].text


def test_two_interior_minima_give_an_exponent_and_a_warning(make_table):
    frontier = fit_isoflop(make_table(models=("mor",), budgets=(1e10, 1e11))).models["mor"]
    assert frontier.params_law.exponent == pytest.approx(0.5, abs=1e-9)
    assert any(warning.code is Code.TWO_BUDGETS for warning in frontier.warnings)


def test_a_power_law_is_fitted_in_log_log():
    budgets = np.array([1.0, 10.0, 100.0])
    law = fit_power_law(budgets, 3 * budgets**0.4)
    assert law.exponent == pytest.approx(0.4)
    assert law.coefficient == pytest.approx(3)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("porian_rw_tuned", 0.491, 0.5045), ("porian_rw_long_warmup", 0.691, 0.717)],
)
def test_published_exponents_of_porian_2024(public_points, name, low, high):
    points = load_points(public_points / f"{name}.csv")
    law = fit_isoflop(points.table).models["model"].params_law
    assert low <= law.exponent <= high
    assert law.interval[0] < law.exponent < law.interval[1]


def test_table_9_has_edges_where_the_paper_draws_minima():
    models = fit_isoflop(load_table9().table, resamples=0).models
    for name in ("vanilla", "recursive"):
        assert [m.status for m in models[name].minima] == ["edge", "edge", "interior"]
        assert models[name].params_law.exponent is None
    assert models["mor"].params_law.exponent is not None
