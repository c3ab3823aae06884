import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.errors import AnalysisError
from analysis.fits.parametric.lawfit import Asked
from analysis.fits.parametric.nested import fit_nested
from analysis.points.load import load_points
from analysis.points.looped import possible_recursions, split_layers
from analysis.points.table import JOINT_NUMBERS, Wanted
from tests.analysis.laws import LOOPED, looped_table

ASKED = Asked(starts=300, resamples=200)


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["joint", *map(str, arguments)])


@pytest.fixture(scope="module")
def done():
    return fit_nested(looped_table(), ASKED)


def test_the_published_phi_comes_back_within_its_interval(done):
    low, high = done.free.intervals.of["phi"]
    assert low < LOOPED["phi"] < high
    assert high - low < 0.1
    for name in ("alpha", "beta", "E"):
        assert done.free.fit.values[name] == pytest.approx(LOOPED[name], rel=0.1), name


def test_a_recursion_is_worth_neither_nothing_nor_all(done):
    nothing, everything = done.fixed
    assert (nothing.phi, everything.phi) == (0.0, 1.0)
    for held in done.fixed:
        assert held.objective > 1.5 * done.free.fit.certificate.objective
        assert held.r2 < done.r2
        assert held.p_value < 0.02
    assert done.r2 > 0.99


@pytest.mark.parametrize("phi", [0.0, 1.0])
def test_a_phi_that_is_true_is_not_rejected_and_the_other_is(phi):
    table = looped_table(0.0)
    size = table["n_once"] + table["r"] ** phi * table["n_rec"]
    loss = LOOPED["E"] + LOOPED["A"] * size ** -LOOPED["alpha"]
    loss += LOOPED["B"] * table["tokens"] ** -LOOPED["beta"]
    noise = np.exp(0.002 * np.random.default_rng(4).normal(size=len(table)))
    fixed = {held.phi: held for held in fit_nested(table.assign(loss=loss * noise), ASKED).fixed}
    assert fixed[phi].p_value > 0.05
    assert fixed[1 - phi].p_value < 0.02


def test_few_cells_are_judged_by_student():
    table = looped_table()
    found = fit_nested(table, Asked(starts=300, resamples=100, resample="budgets"))
    assert found.free.intervals.groups.number == 15
    assert found.free.intervals.method == "student"
    assert 0 < found.fixed[0].p_value < 0.05


def test_points_without_a_loop_are_refused():
    table = looped_table()
    with pytest.raises(AnalysisError, match="needs looped points"):
        fit_nested(table[table["r"] == 1], ASKED)


@pytest.mark.parametrize(
    ("layers", "parts"), [((32, 32, 1), (32, 0)), ((12, 32, 3), (2, 10)), ((3, 9, 3), (0, 3))]
)
def test_layers_split_into_those_met_once_and_the_block(layers, parts):
    assert split_layers(*layers) == parts


@pytest.mark.parametrize("layers", [(12, 33, 3), (12, 32, 1), (3, 30, 2)])
def test_layers_of_no_looped_model_are_refused(layers):
    with pytest.raises(ValueError, match="effective"):
        split_layers(*layers)


@pytest.mark.parametrize(("layers", "possible"), [((12, 32), [3]), ((3, 9), [7, 3]), ((5, 8), [2])])
def test_recursions_are_inferred_from_layers_where_only_one_layout_has_them(layers, possible):
    assert possible_recursions(*layers) == possible


def loop(edit_result, table, recursions=3, unique=12, effective=32) -> list[Path]:
    files = []
    for row in table.to_dict("records"):
        mor = row["model"] == "mor"
        depths = {"unique_layers": unique, "effective_layers": effective if mor else unique}
        file = edit_result(row["run_id"], mean_recursions_train=2.0 if mor else 1.0, **depths)
        if mor:
            config = file.with_name("config.yaml")
            config.write_text(f"model:\n  name: mor\n  n_recursions: {recursions}\n")
        files.append(file)
    return files


def test_a_run_store_tells_its_parts(store, table, edit_result):
    loop(edit_result, table)
    points = load_points(store, wanted=Wanted(JOINT_NUMBERS)).table
    mor, vanilla = (points[points["model"] == name] for name in ("mor", "vanilla"))
    np.testing.assert_allclose(mor["n_rec"], mor["params"] * 10 / 12)
    np.testing.assert_allclose(mor["n_once"], mor["params"] * 2 / 12)
    assert set(mor["r"]) == {2.0}
    assert set(vanilla["n_rec"]) == {0.0}
    total = load_points(store, params="total", wanted=Wanted(JOINT_NUMBERS)).table
    both = total["n_once"] + total["n_rec"]
    np.testing.assert_allclose(both, total["params"])
    result = invoke(store, "--json", "--bootstrap", 20, "--starts", 100)
    content = json.loads(result.stdout)
    assert [held["phi"] for held in content["nested"]] == [0, 1]
    assert "phi" in content["params"]
    assert "phi free" in invoke(store, "--bootstrap", 0, "--starts", 50).stdout


def test_a_store_that_does_not_tell_is_refused_by_file(store, table, edit_result):
    assert "unique_layers" in invoke(store).stderr
    loop(edit_result, table, recursions=1)
    assert "does not fit a looped model" in invoke(store).stderr
    for config in store.glob("*/config.yaml"):
        config.unlink()
    assert invoke(store, "--bootstrap", 0, "--starts", 50).exit_code == 0
    for config in loop(edit_result, table, unique=3, effective=9):
        config.with_name("config.yaml").unlink(missing_ok=True)
    result = invoke(store)
    assert result.exit_code == 2
    assert "model.n_recursions" in result.stderr
    assert result.stderr.count("\n") == 1
