"""The figures hold what they should; how they look was judged by eye."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis.figures import isoflop_curves, kv_depth, loss_vs_budget, style
from analysis.fits.isoflop import fit_isoflop
from analysis.points.table import PointSet
from analysis.reference import load_table9


@pytest.fixture
def reference():
    points = load_table9()
    return points, fit_isoflop(points.table, resamples=0)


def test_isoflop_curves_are_saved_in_three_formats_with_their_data(reference, tmp_path):
    points, result = reference
    figure = isoflop_curves.draw(result, points, tmp_path, "curves")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        figure.name(suffix) for suffix in ("csv", "pdf", "png", "svg")
    ]
    data = pd.read_csv(tmp_path / "curves.csv")
    assert (data["kind"] == "point").sum() == 36
    assert (data["kind"] == "minimum").sum() == 5
    assert (data["kind"] == "lowest size").sum() == 4
    assert set(data.loc[data["kind"] == "lowest size", "status"]) == {"edge"}
    assert "vanilla: 2e18 edge, 5e18 edge, 1.65e19 interior" in figure.alt


def test_text_of_a_figure_is_text_with_units(reference, tmp_path):
    points, result = reference
    isoflop_curves.draw(result, points, tmp_path, "curves")
    loss_vs_budget.draw(points, tmp_path, "loss")
    curves, loss = ((tmp_path / f"{name}.svg").read_text() for name in ("curves", "loss"))
    for said in ("Validation loss (nats per token)", "Budget (FLOPs, paper convention)"):
        assert f">{said}<" in curves
        assert f">{said}<" in loss
    assert ">Parameters, non-embedding<" in curves
    assert curves.count(">edge<") == 4
    assert all(f">{size}<" in loss for size in ("135M", "360M", "730M", "1.7B"))


def test_the_same_points_give_the_same_bytes(reference, tmp_path):
    points, result = reference
    isoflop_curves.draw(result, points, tmp_path, "a")
    isoflop_curves.draw(result, points, tmp_path, "b")
    for suffix in ("png", "svg", "pdf", "csv"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_a_panel_holds_the_seeds_and_their_mean(make_table, tmp_path):
    table = make_table(models=("mor", "zeta"), seeds=(0, 1), noise=0.05)
    figure = loss_vs_budget.draw(PointSet(table, "synthetic"), tmp_path, "loss")
    assert len(pd.read_csv(tmp_path / "loss.csv")) == len(table)
    assert "mor, zeta" in figure.alt


def test_loss_against_budget_needs_sizes_and_two_budgets(table):
    assert loss_vs_budget.can_draw(PointSet(table, "x"))
    assert not loss_vs_budget.can_draw(PointSet(table.assign(size=None), "x"))
    assert not loss_vs_budget.can_draw(PointSet(table[table["budget"] == 1e10], "x"))


@pytest.mark.parametrize("n_sizes", [1, 2])
def test_a_study_too_small_to_fit_is_drawn_all_the_same(make_table, tmp_path, n_sizes):
    table = make_table(models=("mor",), sizes={"a": 1e4, "b": 1e5} if n_sizes == 2 else {"a": 1e4})
    points = PointSet(table, "synthetic")
    figure = isoflop_curves.draw(fit_isoflop(table), points, tmp_path, "small")
    assert "too few points" in figure.alt


def test_many_budgets_share_one_short_legend(make_table, tmp_path):
    table = make_table(models=("mor",), budgets=tuple(1e10 * 2.0**i for i in range(9)))
    isoflop_curves.draw(fit_isoflop(table), PointSet(table, "synthetic"), tmp_path, "many")
    text = (tmp_path / "many.svg").read_text()
    assert ">1e10<" in text
    assert ">2.56e12<" in text
    assert text.count("e10<") + text.count("e11<") + text.count("e12<") == 6


def test_the_legend_of_keys_and_values_stands_outside_of_their_panel(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(style, "save", lambda figure, *_: drawn.append(figure))
    cosines = np.eye(6).tolist()
    statistics = {"key_norm": [5, 2, 3, 4, 2, 3], "value_norm": [1, 2, 2, 2, 1, 2]}
    statistics |= {"key_cosine": cosines, "value_cosine": cosines}
    run = SimpleNamespace(kv_statistics=statistics, run_id="recursive-9k")
    kv_depth.draw(run, tmp_path, "appendix_kv")
    (figure,) = drawn
    figure.draw_without_rendering()
    norms = figure.axes[0]
    panel, legend = norms.get_window_extent(), norms.get_legend().get_window_extent()
    assert legend.y0 >= panel.y1
    assert legend.y1 <= figure.bbox.y1
