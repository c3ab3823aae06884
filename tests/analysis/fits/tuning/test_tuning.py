"""Optima and laws of tune studies: exact ones are found, edges are refused, intervals cover."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.cautions import Code
from analysis.errors import AnalysisError
from analysis.fits.tuning.cells import tune_table
from analysis.fits.tuning.fit import fit_tuning, further
from analysis.fits.tuning.optimum import Found
from analysis.fits.tuning.recipe import recipe_of
from tests.analysis.fits.tuning.studies import (
    BATCH_BEND,
    BUDGETS,
    LR_BEND,
    SIZES,
    best_lr,
    tune_study,
)


def fitted(table, over=(), where=None, resamples=400):
    cells = tune_table(table, over, where)
    return fit_tuning(cells, resamples), cells


@pytest.mark.parametrize(("a", "b"), [(0.4, 0.0), (0.3, 0.2), (0.0, -0.3)])
def test_an_exact_study_gives_its_law_back(a, b):
    tuned, cells = fitted(tune_study(1e-7, a, b))
    [curve] = tuned.curves.values()
    [law] = curve.laws
    assert all(one.enclosed for one in curve.optima)
    assert law.at(1e8, 2e9) == pytest.approx(best_lr(1e8, 2e9, a, b), rel=1e-2)
    assert (law.a, law.b) == (pytest.approx(a, abs=1e-3), pytest.approx(b, abs=1e-3))
    recipe = recipe_of(tuned, cells, "r", "s").recipe
    assert recipe is not None
    assert recipe.of("vanilla")["train.lr"].at(1e8, 2e9) == pytest.approx(law.at(1e8, 2e9))


def test_two_settings_at_once_and_the_batch_in_tokens():
    tuned, cells = fitted(tune_study(1e-6, batches=(8, 16, 32, 64)))
    curve = tuned.curves["vanilla"]
    assert tuned.over == ("train.batch_size", "train.lr")
    for one in curve.optima:
        assert one.values is not None
        assert one.values[0] == pytest.approx(32, rel=1e-2)
        assert one.values[1] == pytest.approx(best_lr(one.cell.params, 0), rel=1e-2)
        assert np.diag(one.curvature) == pytest.approx([BATCH_BEND, LR_BEND], rel=0.02)
    recipe = recipe_of(tuned, cells, "r", "s").recipe
    assert recipe is not None
    assert recipe.of("vanilla")["train.batch_size"].at(4e6, 1e8) == pytest.approx(32 * 64, rel=0.02)


def test_intervals_hold_the_truth():
    """40 studies of 6 optima and a law each: 95 % intervals, 90 % or more of them right."""
    held, laws = [], []
    for seed in range(40):
        tuned, _ = fitted(tune_study(0.002, seed=seed))
        [curve] = tuned.curves.values()
        for one in curve.enclosed:
            assert one.intervals is not None
            [(low, high)] = one.intervals
            held.append(low <= best_lr(one.cell.params, 0) <= high)
        [law] = curve.laws
        low, high = law.a_interval
        laws.append(low <= 0.4 <= high)
    assert len(held) > 200
    assert np.mean(held) >= 0.9
    assert np.mean(laws) >= 0.85


def test_a_skew_valley_is_not_fitted_as_a_parabola():
    """A parabola is 25 % off here, and its interval never holds the truth."""
    held, off = [], []
    for seed in range(15):
        tuned, _ = fitted(tune_study(0.003, seed=seed, skewed=True))
        for one in tuned.curves["vanilla"].enclosed:
            best = best_lr(one.cell.params, 0)
            [(low, high)] = one.intervals
            held.append(low <= best <= high)
            off.append(np.log(one.values[0] / best))
    assert np.mean(held) >= 0.85
    assert abs(np.mean(off)) < 0.06


@pytest.mark.parametrize(("centre", "side"), [(1e-4, "larger"), (1.0, "smaller")])
def test_optima_beyond_what_was_tried_are_refused_with_what_to_try(centre, side):
    with pytest.raises(AnalysisError) as refused:
        fitted(tune_study(1e-4, centre=centre))
    tried = centre * (4 if side == "larger" else 0.25)
    beyond = (2, 4) if side == "larger" else (0.25, 0.5)
    wanted = ",".join(f"{tried * f:.4g}" for f in beyond)
    assert f"train.lr={wanted}" in str(refused.value)


def test_one_edge_is_left_out_and_named():
    inside, beyond = tune_study(1e-4), tune_study(1e-4, sizes={"xl": 64e6}, centre=1e-6)
    tuned, _ = fitted(pd.concat([inside, beyond], ignore_index=True))
    curve = tuned.curves["vanilla"]
    outside = [one for one in curve.optima if not one.enclosed]
    assert {one.cell.size for one in outside} == {"xl"}
    assert all(one.found in (Found.EDGE, Found.NOT_CONVEX) for one in outside)
    assert Code.OPTIMUM_OUTSIDE in {w.code for w in tuned.warnings}
    assert curve.laws[0].a == pytest.approx(0.4, abs=0.05)


def with_cell(losses: list[float]) -> pd.DataFrame:
    """A study that is noisy enough to hide a slight bend, and a cell of losses at doubling
    rates."""
    cell = tune_study(sizes={"xl": 64e6}, budgets=BUDGETS[:1])
    return pd.concat([tune_study(0.03), cell.assign(loss=losses)], ignore_index=True)


@pytest.mark.parametrize("side", ["smaller", "larger"])
def test_losses_that_fall_to_an_edge_are_an_edge_however_noisy(side):
    losses = [2.803, 2.633, 2.469, 2.434, 2.424]
    tuned, _ = fitted(with_cell(losses if side == "larger" else losses[::-1]))
    one = next(one for one in tuned.curves["vanilla"].optima if one.cell.size == "xl")
    assert (one.found, one.wanted) == (Found.EDGE, (0, side))
    end = one.cell.tried(0)[-1 if side == "larger" else 0]
    assert f"train.lr={end:.4g}" in one.reason
    beyond = f"{2 * end:.4g}" if side == "larger" else f"{end / 2:.4g}"
    assert beyond in further([one], tuned.over)


def test_noise_is_answered_with_repeats_also_where_the_lowest_run_stands_at_an_end():
    tuned, _ = fitted(with_cell([2.47, 2.44, 2.424, 2.435, 2.4235]))
    one = next(one for one in tuned.curves["vanilla"].optima if one.cell.size == "xl")
    assert (one.found, one.wanted) == (Found.OPEN, None)
    assert further([one], tuned.over) == "repeat the runs with seed=1,2"
    other = replace(one, found=Found.EDGE, wanted=(0, "larger"))
    both = further([one, other], tuned.over)
    assert "train.lr=" in both
    assert "xl" in both
    assert "seed=1,2" in both


@pytest.mark.parametrize("factors", [(1.0,), (0.5, 1.0)])
def test_too_few_values_are_refused(factors):
    with pytest.raises(AnalysisError, match=r"train\.lr"):
        fitted(tune_study(factors=factors))


def test_a_batch_of_one_is_the_end_of_batches():
    table = tune_study(1e-5, batches=(1, 2, 4), best_batch=0.5)
    with pytest.raises(AnalysisError) as refused:
        fitted(table)
    assert "--over train.lr --where train.batch_size=1" in str(refused.value)
    assert "train.batch_size=0" not in str(refused.value)
    tuned, _ = fitted(table, ("train.lr",), {"train.batch_size": "1"})
    assert all(one.enclosed for one in tuned.curves["vanilla"].optima)


def test_over_and_where_choose():
    table = tune_study(1e-5, batches=(8, 16, 32))
    tuned, _ = fitted(table, ("train.lr",), {"train.batch_size": "16"})
    assert list(tuned.curves) == ["vanilla"]
    variants, cells = fitted(table, ("train.lr",))
    assert sorted(variants.curves) == [f"vanilla (batch_size={n})" for n in (16, 32, 8)]
    written = recipe_of(variants, cells, "r", "s")
    assert written.recipe is None
    assert {w.code for w in written.warnings} == {Code.SPLIT_MODEL}
    for over, where in [(("train.wd",), {}), (("train.seq_len",), {}), ((), {"train.lr": "9"})]:
        with pytest.raises(AnalysisError):
            tune_table(table, over, where)


def test_a_batch_that_goes_with_size_is_no_variant():
    table = tune_study(1e-5)
    for settings, size in zip(table["settings"], table["size"], strict=True):
        settings["train.batch_size"] = {"s": 8, "m": 16, "l": 32}[size]
    assert list(tune_table(table).cells) == ["vanilla"]


def test_one_budget_takes_size_for_both_and_says_so():
    tuned, _ = fitted(tune_study(1e-4, budgets=(1e15,)))
    law = tuned.curves["vanilla"].laws[0]
    assert law.uses == (True, False)
    assert Code.ONE_RAY in {w.code for w in tuned.warnings}


def test_three_values_and_no_repeat_have_no_interval():
    tuned, cells = fitted(tune_study(factors=(0.5, 1.0, 2.0)))
    assert tuned.curves["vanilla"].laws[0].a == pytest.approx(0.4, abs=1e-6)
    assert tuned.curves["vanilla"].laws[0].a_interval is None
    assert Code.NO_INTERVAL in {w.code for w in tuned.warnings}
    written = recipe_of(tuned, cells, "r", "s").recipe
    assert written is not None
    assert not written.tuning


def test_a_setting_that_no_recipe_names_by_default():
    """Any swept number works: here the weight decay, found from what varies."""
    table = tune_study(1e-5)
    for settings in table["settings"]:
        settings["train.weight_decay"] = settings["train.lr"]
        settings["train.lr"] = "0.005"
    tuned, _ = fitted(table)
    assert tuned.over == ("train.weight_decay",)
    assert set(SIZES) == {one.cell.size for one in tuned.curves["vanilla"].enclosed}
