"""The bias of a parabola: estimated by approach 3 and subtracted, or left with a reason."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cautions import Code
from analysis.compare.equal_compute import compare
from analysis.fits import noise as noise_of
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.minimum import Status
from benchmarks.coverage_isoflop import GRIDS, LAWS, Grid, draw


def study(law="gemstones", grid=GRIDS["drifting"], noise=0.0, seed=0) -> pd.DataFrame:
    return draw(np.random.default_rng(seed), LAWS[law], grid, noise, 0.0)


@settings(max_examples=8, deadline=None)
@given(
    law=st.sampled_from(sorted(LAWS)),
    reach=st.floats(3, 16),
    last=st.floats(0.5, 2.5),
    sizes=st.integers(5, 9),
)
def test_on_a_law_without_noise_the_corrected_minima_are_its_own(law, reach, last, sizes):
    """Tiny noise only: parabolas must have residuals, or nothing tells whether the law fits."""
    table = study(law, Grid(sizes, reach, 4, 1.0, last), noise=1e-6)
    for frontier in fit_isoflop(table, window=20, resamples=0).models.values():
        corrected = [m for m in frontier.interior if m.uncorrected is not None]
        assert len(corrected) == len(frontier.interior)
        for minimum in corrected:
            true = float(LAWS[law].optimum(np.array(minimum.budget)))
            assert minimum.params == pytest.approx(true, rel=2e-3)
            tokens = minimum.budget / (6 * minimum.params)
            assert minimum.tokens == pytest.approx(tokens, rel=1e-6)
            best = float(LAWS[law].loss(np.array(true), np.array(minimum.budget / (6 * true))))
            assert minimum.loss == pytest.approx(best, abs=2e-4)


def test_the_exponent_of_a_drifting_grid_is_right_only_when_corrected():
    frontier = fit_isoflop(study(noise=1e-5), resamples=0).models["mor"]
    a = LAWS["gemstones"].a
    assert frontier.note.code is Code.BIAS_CORRECTED
    assert frontier.params_law.exponent == pytest.approx(a, abs=1e-3)
    assert abs(frontier.uncorrected_params_law.exponent - a) > 0.02


def test_the_order_of_the_points_changes_nothing():
    table = study(noise=0.003)
    one, other = (
        fit_isoflop(t, resamples=50).models["mor"]
        for t in (table, table.sample(frac=1, random_state=1))
    )
    assert one.params_law == other.params_law
    assert [m.params_interval for m in one.minima] == [m.params_interval for m in other.minima]


def test_points_that_no_law_meets_are_left_to_their_parabolas():
    table = study(noise=0.001)
    bent = table.assign(loss=table["loss"] * (1 + 0.02 * (table.groupby("budget").ngroup() % 2)))
    note = fit_isoflop(bent, resamples=0).models["mor"].note
    assert note.code is Code.NOT_CORRECTED
    assert "times their noise" in note.reason


def test_points_that_are_no_law_keep_their_parabolas(make_table):
    for noise in (0.0, 1e-3):
        frontier = fit_isoflop(make_table(noise=noise), resamples=0).models["mor"]
        assert frontier.note.code is Code.NOT_CORRECTED
        assert frontier.note.reason
        assert all(m.uncorrected is None for m in frontier.minima)
        assert frontier.params_law == frontier.uncorrected_params_law


@pytest.mark.parametrize(
    ("grid", "said"), [(Grid(5, 4, 1), "only 5 points"), (Grid(3, 3, 4), "no degree of freedom")]
)
def test_too_little_for_approach_3_is_said(grid, said):
    frontier = fit_isoflop(study(grid=grid, noise=0.001), resamples=0).models["mor"]
    assert frontier.note.code is Code.NOT_CORRECTED
    assert said in frontier.note.reason


def test_a_corrected_minimum_beyond_the_sizes_is_an_edge():
    grid = Grid(7, 4, 3, 3.4, 3.4)  # the law's own minimum is near the smallest size
    found = [
        (minimum, frontier.correction)
        for seed in range(6)
        for frontier in fit_isoflop(study("sparse", grid, 0.001, seed), resamples=0).models.values()
        for minimum in frontier.minima
    ]
    shifted = [m for m, correction in found if m.budget in correction.shifts]
    assert shifted
    for minimum in shifted:
        inside = minimum.status is Status.INTERIOR
        assert inside == (minimum.params is not None) == (minimum.uncorrected is not None)
        if inside:
            assert minimum.parabola.log_params[0] < np.log(minimum.params)


def test_slopes_of_a_shift_are_its_change_with_the_losses():
    """The whole fit again with one loss moved: as the linearised shift says."""
    table = study(noise=0.002).query("model == 'mor'").reset_index(drop=True)
    frontier = fit_isoflop(table, resamples=0).models["mor"]
    before, row = frontier.correction, frontier.minima[1].rows[2]
    moved = table.assign(loss=table["loss"].where(table.index != row, table["loss"] * (1 + 1e-4)))
    after = fit_isoflop(moved, resamples=0).models["mor"].correction
    place = before.index.tolist().index(row)
    for budget, shift in before.shifts.items():
        change = after.shifts[budget].log_params - shift.log_params
        assert change == pytest.approx(1e-4 * shift.log_params_slope[place], rel=0.2, abs=2e-7)
        change = after.shifts[budget].loss - shift.loss
        assert change == pytest.approx(1e-4 * shift.loss_slope[place], rel=0.2, abs=2e-7)


def test_the_standard_error_of_a_corrected_loss_is_its_spread_over_studies():
    losses, errors = [], []
    for seed in range(80):
        table = study("sparse", GRIDS["demo"], 0.002, seed).query("model == 'mor'")
        minimum = (frontier := fit_isoflop(table, resamples=0).models["mor"]).minima[1]
        if minimum.uncorrected is not None:
            losses.append(minimum.loss)
            errors.append(frontier.loss_errors[minimum.budget])
    assert len(losses) > 60
    assert np.std(losses) == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.2)


def test_with_a_correction_the_misfit_of_parabolas_is_no_noise():
    wide = fit_isoflop(study("sparse", GRIDS["wide"], 0.003), resamples=0)
    assert wide.noise.relative == pytest.approx(0.003, rel=0.3)
    parabolas = [m.parabola for f in wide.models.values() for m in f.minima if m.parabola]
    raw = noise_of.pool(parabolas)
    assert raw.relative > 2 * wide.noise.relative
    assert wide.noise.degrees_of_freedom < raw.degrees_of_freedom


def test_compare_says_who_is_corrected():
    table = study(noise=0.003)
    done = compare(fit_isoflop(table, resamples=0), "vanilla")
    assert Code.BIAS_CORRECTED in {w.code for w in done.warnings}
    few = table[(table["model"] == "vanilla") | (table["budget"] == table["budget"].min())]
    few = few[(few["model"] == "vanilla") | (few.groupby("model").cumcount() < 5)]
    mixed = compare(fit_isoflop(few, resamples=0), "vanilla").warnings
    assert [w.code for w in mixed if w.code.name.endswith("CORRECTED")] == [Code.NOT_CORRECTED]
