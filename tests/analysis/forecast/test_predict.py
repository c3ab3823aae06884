"""Predictions where the answer is known, and what is refused or said."""

import numpy as np
import pandas as pd
import pytest

from analysis.cautions import Code
from analysis.errors import AnalysisError
from analysis.fits.isoflop import fit_isoflop
from analysis.forecast.extrapolate import ByLaw, ByMinima, beyond
from analysis.forecast.predict import Asked, predict
from benchmarks.coverage_conclusions import K, ahead
from benchmarks.coverage_isoflop import GRIDS, LAWS, MODELS, draw

BASE, OTHER = MODELS
LAW = LAWS["symmetric"]
TOP = 1e21


def study(noise: float = 0.002, grid: str = "mid", seed: int = 0) -> pd.DataFrame:
    """Two models, the second K times as good with tokens, without the largest budget."""
    table = ahead(draw(np.random.default_rng(seed), LAW, GRIDS[grid], noise, 0.0), LAW)
    return table[table["budget"] < 0.9 * TOP].reset_index(drop=True)


def forecast(table: pd.DataFrame, *asked: Asked, level: float = 0.9, resamples: int = 200):
    return predict(table, list(asked), level=level, baseline=BASE, resamples=resamples, seed=0)


def best_of(budget: float, factor: float = 1.0) -> tuple[float, float]:
    """The law's best size and loss where tokens count `factor` times."""
    size = LAW.optimum(np.array(factor * budget))
    return float(size), float(LAW.loss(size, factor * budget / 6 / size))


def test_exact_points_give_the_laws_own_optimum():
    done = forecast(study(1e-6), Asked((TOP, 4 * TOP)))
    assert len(done.best) == 4
    for row in done.best:
        size, loss = best_of(row.budget, K if row.model == OTHER else 1.0)
        assert row.how == "law"
        assert row.loss == pytest.approx(loss, rel=1e-4)
        assert row.params == pytest.approx(size, rel=2e-3)


def test_bands_hold_the_truth_and_grow_with_the_level_and_the_distance():
    table = study()
    widths = {}
    for level in (0.5, 0.95):
        done = forecast(table, Asked((TOP, 10 * TOP), (BASE,)), level=level)
        widths[level] = [row.interval[1] - row.interval[0] for row in done.best]
    (near, _) = done.best
    assert near.interval[0] < best_of(TOP)[1] < near.interval[1]
    assert near.params_interval[0] < best_of(TOP)[0] < near.params_interval[1]
    assert widths[0.5][0] < 0.6 * widths[0.95][0]
    assert widths[0.95][0] < widths[0.95][1]


def test_a_gap_is_the_difference_of_best_losses():
    done = forecast(study(), Asked((TOP,)))
    losses = {row.model: row.loss for row in done.best}
    (gap,) = done.gaps
    assert (gap.model, gap.baseline) == (OTHER, BASE)
    assert gap.gap == pytest.approx(losses[OTHER] - losses[BASE], abs=1e-12)
    assert gap.interval[0] < gap.gap < gap.interval[1]


def test_a_run_at_the_best_size_has_the_best_loss_and_noise_of_its_own():
    table = study()
    best = forecast(table, Asked((TOP,), (BASE,))).best[0]
    sizes = (best.params, 3 * best.params)
    done = forecast(table, Asked((TOP,), (BASE,), params=sizes))
    at, larger = done.runs
    assert at.loss == pytest.approx(best.loss, rel=1e-4)
    assert larger.loss > at.loss
    true = float(LAW.loss(np.array(sizes[1]), TOP / 6 / sizes[1]))
    assert larger.interval[0] < true < larger.interval[1]


def test_a_size_is_taken_by_its_name():
    table = study()
    sizes = np.sort(table["params"].unique())
    names = {params: f"s{i}" for i, params in enumerate(sizes)}
    table = table.assign(size=table["params"].map(names))
    (run,) = forecast(table, Asked((TOP,), (BASE,), sizes=("s20",))).runs
    assert run.params == pytest.approx(sizes[20])
    with pytest.raises(AnalysisError, match="size=s99"):
        forecast(table, Asked((TOP,), (BASE,), sizes=("s99",)))
    (run,) = forecast(table, Asked((TOP,), (BASE,), params=(1.0002 * sizes[20],))).runs
    assert run.size == "s20"


def test_sizes_without_names_are_asked_for_by_their_parameters():
    with pytest.raises(AnalysisError, match=r"size=s99.* give params="):
        forecast(study(), Asked((TOP,), (BASE,), sizes=("s99",)))


def test_single_runs_alone():
    done = forecast(study(), Asked((TOP,), params=(1e9,), best=False))
    assert (done.best, done.gaps) == ((), ())
    assert [row.model for row in done.runs] == [BASE, OTHER]


def test_a_model_stands_for_its_curves():
    table = study()
    table = table.assign(curve=table["model"] + " (lr=1)", label=None)
    done = forecast(table, Asked((TOP,), (OTHER,)))
    assert [row.model for row in done.best] == [f"{OTHER} (lr=1)"]


def bent(table: pd.DataFrame) -> pd.DataFrame:
    """Minima that no law of approach 3 meets: the loss falls with a step at each budget."""
    budgets = np.unique(table["budget"])
    step = dict(zip(budgets, 1 - 0.03 * np.sin(np.arange(len(budgets)) * 2.0), strict=True))
    return table.assign(loss=table["loss"] * table["budget"].map(step))


def test_points_that_no_law_meets_are_carried_on_by_their_minima():
    done = forecast(bent(study()), Asked((2 * TOP,)))
    assert {row.how for row in done.best} == {"minima"}
    assert Code.NOT_CORRECTED in {warning.code for warning in done.warnings}
    for row in done.best:
        assert row.interval[0] < row.loss < row.interval[1]


def test_the_choice_of_law_is_in_the_band():
    """Minima that a power law with a floor and one without carry on differently."""
    table = bent(study())
    fitted = fit_isoflop(table, resamples=100)
    rows = table[table["model"] == BASE]
    found = beyond(rows, fitted.models[BASE], fitted.noise, 100, 0)
    assert isinstance(found, ByMinima)
    near, far = found.best(np.log(TOP)), found.best(np.log(100 * TOP))
    assert far.laws > near.laws > 0
    low, high = far.interval(0.9)
    assert high - low > 2 * 1.6 * far.laws


def test_a_frontier_that_is_a_power_law_with_a_floor_is_carried_on_exactly():
    budgets = np.geomspace(1e18, 1e20, 5)
    losses = 1.7 + 900 * budgets**-0.15
    table = study(1e-6)
    fitted = fit_isoflop(table, resamples=0)
    found = ByMinima(fitted.models[BASE], fitted.noise, 0, 0)
    found.log_budgets, found.losses = np.log(budgets), losses[None]
    expected = np.log(1.7 + 900 * 1e21**-0.15)
    guess = found.best(np.log(1e21))
    assert guess.value - guess.laws < expected < guess.value + 1.01 * guess.laws
    assert guess.interval(0.9) is None


def test_without_resamples_there_is_no_interval():
    done = forecast(study(), Asked((TOP,), params=(1e9,)), resamples=0)
    ends = [row.interval for row in (*done.best, *done.gaps, *done.runs)]
    assert set(ends) == {None}


def test_a_budget_among_the_points_and_one_far_beyond_are_said():
    table = study()
    codes = [w.code for w in forecast(table, Asked((3e19, 1e23))).warnings]
    assert codes == [Code.WITHIN_POINTS, Code.EXTRAPOLATED]
    assert forecast(table, Asked((TOP,))).warnings == ()
    outside = forecast(table, Asked((TOP,), params=(1e15,))).warnings
    assert {w.code for w in outside} == {Code.BEYOND_THE_LAW}


@pytest.mark.parametrize(
    ("factor", "said"), [(0.05, True), (0.2, False), (1.0, False), (5.0, False), (20.0, True)]
)
def test_far_below_the_points_is_as_far_as_far_beyond(factor, said):
    table = study()
    end = table["budget"].min() if factor < 1 else table["budget"].max()
    found = forecast(table, Asked((factor * end,), (BASE,))).warnings
    assert (Code.EXTRAPOLATED in {w.code for w in found}) == said


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("budget", [1.0, 1e60, 1e150, 1e300])
@pytest.mark.parametrize("make", [study, lambda: bent(study())])
def test_a_forecast_however_far_is_of_numbers_or_has_no_interval(budget, make):
    sizes = (1e9,) if budget < 1e100 else ()
    done = forecast(make(), Asked((budget,), params=sizes))
    assert (len(done.best), len(done.runs)) == (2, 2 * len(sizes))
    ends = [row.interval for row in (*done.best, *done.runs)]
    for one in (*ends, *(row.params_interval for row in done.best)):
        assert one is None or 0 < one[0] <= one[1] < np.inf
    values = [row.loss for row in (*done.best, *done.runs)]
    assert all(0 < value < np.inf for value in (*values, *(row.params for row in done.best)))
    [gap] = done.gaps
    assert np.isfinite([gap.gap, *(gap.interval or ())]).all()


def test_a_run_whose_loss_is_no_number_is_refused():
    with pytest.raises(AnalysisError, match="1e300"):
        forecast(bent(study()), Asked((TOP,), (BASE,), params=(1e300,)))


def test_too_few_budgets_are_refused_and_another_model_goes_on():
    table = study()
    few = table[table["budget"] < 5e18]
    with pytest.raises(AnalysisError, match="No forecast"):
        forecast(few.reset_index(drop=True), Asked((TOP,)))
    mixed = pd.concat([table[table["model"] == BASE], few[few["model"] == OTHER]])
    done = forecast(mixed.reset_index(drop=True), Asked((TOP,)))
    assert {row.model for row in done.best} == {BASE}
    assert [w.model for w in done.warnings if w.code is Code.NO_FORECAST] == [OTHER]


def test_a_model_that_is_not_there_is_refused():
    with pytest.raises(AnalysisError, match="model=gpt"):
        forecast(study(), Asked((TOP,), ("gpt",)))


def test_the_same_seed_gives_the_same_forecast():
    table = study()
    assert forecast(table, Asked((TOP,))) == forecast(table, Asked((TOP,)))


def test_the_law_is_chosen_where_it_meets_the_points():
    table = study()
    fitted = fit_isoflop(table, resamples=50)
    rows = table[table["model"] == OTHER]
    assert isinstance(beyond(rows, fitted.models[OTHER], fitted.noise, 50, 0), ByLaw)
