"""Figures of the fits hold what the fits found; how they look was judged by eye."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.figures.law_fit import (
    LABEL,
    PRINTED,
    frontier,
    label_places,
    prediction_data,
    profile,
)
from analysis.fits.parametric.lawfit import Asked, report
from analysis.fits.parametric.laws import Chinchilla
from analysis.fits.parametric.solver import score
from tests.analysis.conftest import build_store
from tests.analysis.laws import TRUTH, law_table, looped_table


@pytest.fixture(scope="module")
def fitted():
    table = law_table(noise=0.003)
    return table, report(Chinchilla.of(table), table, Asked(resamples=0))


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_profile_is_the_objective_refitted_with_one_parameter_held(fitted, name):
    _, done = fitted
    best, lowest = done.fit.values[name], done.fit.certificate.objective
    values = best + 0.1 * np.linspace(-1, 1, 9)
    found = profile(done.fit, name, values)
    assert found[4] == pytest.approx(lowest)
    assert (found >= lowest * (1 - 1e-9)).all()
    # Falls to the optimum from either side.
    assert (np.diff(found[:5]) <= 1e-12).all()
    assert (np.diff(found[4:]) >= -1e-12).all()
    # Another solver, from the same place, gets no lower at the far end.
    column = done.fit.problem.law.parameters.index(name)
    free = [i for i in range(5) if i != column]

    def objective(rest):
        theta = done.fit.theta.copy()
        theta[column], theta[free] = values[-1], rest
        return score(done.fit.problem, theta[None])[0]

    rival = minimize(
        objective, done.fit.theta[free], method="Nelder-Mead", options={"maxiter": 4000}
    )
    assert found[-1] <= rival.fun * (1 + 1e-6)


def test_the_frontier_is_the_lowest_loss_at_its_compute(fitted):
    _, done = fitted
    for row in frontier(done.fit, np.array([1e8, 1e9, 1e10])).to_dict("records"):
        budget = row["params"] * row["tokens"]
        values = done.fit.values
        sizes = row["params"] * np.geomspace(0.5, 2, 201)
        losses = values["E"] + values["A"] / sizes ** values["alpha"]
        losses += values["B"] / (budget / sizes) ** values["beta"]
        assert losses.argmin() == 100
        assert losses[100] == pytest.approx(row["loss"])


def test_predictions_and_residuals_add_up(fitted):
    table, done = fitted
    data = prediction_data(done, table["model"])
    np.testing.assert_allclose(data["measured"], table["loss"])
    np.testing.assert_allclose(data["predicted"] * (1 + data["residual"]), data["measured"])
    truth = TRUTH["E"] + TRUTH["A"] / table["params"] ** TRUTH["alpha"]
    truth += TRUTH["B"] / table["tokens"] ** TRUTH["beta"]
    np.testing.assert_allclose(data["predicted"], truth, rtol=0.01)


DRAWN = {
    "fit": {"law_predictions", "law_profiles", "law_contours"},
    "envelope": {"envelope"},
    "compare": {"effective_compute"},
}


@pytest.mark.parametrize("command", sorted(DRAWN))
def test_a_fit_is_drawn_where_it_is_told_to_and_only_then(command, make_table, tmp_path):
    store = build_store(tmp_path, make_table(noise=0.003))
    arguments = [command, str(store), "--bootstrap", "50", "--out", str(tmp_path / "drawn")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert {file.stem for file in (tmp_path / "drawn").iterdir()} == DRAWN[command]
    for stem in DRAWN[command]:
        assert not pd.read_csv(tmp_path / "drawn" / f"{stem}.csv").empty
        assert f"drawn: {tmp_path / 'drawn' / stem}.svg" in result.stdout


def test_the_joint_law_is_drawn_with_phi_and_without_a_map(tmp_path):
    path = tmp_path / "looped.csv"
    looped_table().to_csv(path, index=False)
    out = tmp_path / "drawn"
    arguments = ["joint", str(path), "--bootstrap", "0", "--starts", "500", "--out", str(out)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert {file.stem for file in out.iterdir()} == {"law_predictions", "law_profiles"}
    assert set(pd.read_csv(out / "law_profiles.csv")["parameter"]) == {"alpha", "beta", "phi"}


def test_labels_of_contours_keep_off_the_runs_the_edges_and_each_other():
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 80)
    lines = [np.column_stack([x, height - 0.3 * x]) for height in np.linspace(0.2, 1.2, 6)]
    runs = rng.uniform(size=(15, 2))
    runs = np.vstack([runs, [np.nan, 0.5]])  # a frontier that has no place somewhere
    places = label_places(lines, runs)
    labels = np.array([line[i] for line, i in zip(lines, places, strict=True) if i is not None])
    assert len(labels) >= 4
    for one in labels:
        near = np.vstack([runs[:15], labels[(labels != one).any(axis=1)]])
        assert (np.linalg.norm((near - one) / LABEL, axis=1) >= 1).all()
        assert (one >= LABEL).all()
        assert (1 - one >= LABEL).all()
    assert label_places([np.array([[0.5, 0.5]])], np.array([[0.5, 0.5]])) == [None]


def test_no_contour_is_too_pale_for_print():
    for share in np.linspace(0, 1, 12):
        linear = ((np.array(PRINTED(share)[:3]) + 0.055) / 1.055) ** 2.4
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        assert 1.05 / (luminance + 0.05) > 3  # contrast with white, as WCAG asks of lines
