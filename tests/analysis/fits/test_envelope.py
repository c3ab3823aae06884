import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.cautions import Code
from analysis.commands.cli import app
from analysis.errors import AnalysisError
from analysis.fits.envelope import fit_envelope
from analysis.formatting import count
from analysis.points.curves import from_metrics, from_points
from analysis.points.load import load_points
from analysis.points.table import LAW_NUMBERS, Wanted
from tests.analysis.laws import TRUTH


def curves(sizes: int = 24, per_size: int = 40, noise: float = 0.0) -> pd.DataFrame:
    """Sizes trained from 1e17 to 1e22 FLOPs on the known law."""
    rng = np.random.default_rng(0)
    rows = []
    for params in np.geomspace(2e6, 2e11, sizes):
        for compute in np.geomspace(1e17, 1e22, per_size):
            tokens = compute / (6 * params)
            loss = TRUTH["E"] + TRUTH["A"] / params ** TRUTH["alpha"]
            loss += TRUTH["B"] / tokens ** TRUTH["beta"]
            rows.append((params, tokens, loss * np.exp(noise * rng.normal()), compute))
    return pd.DataFrame(rows, columns=["params", "tokens", "loss", "compute"])


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["envelope", *map(str, arguments)])


def test_the_exponents_of_the_law_are_along_the_envelope():
    done = fit_envelope("vanilla", curves(), resamples=100)
    a = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
    assert done.params_law.exponent == pytest.approx(a, abs=0.02)
    assert done.tokens_law.exponent == pytest.approx(1 - a, abs=0.02)
    low, high = done.params_law.interval
    assert low < a < high
    assert done.warnings == ()


def test_the_envelope_lies_on_or_below_every_curve():
    table = curves(noise=0.01)
    done = fit_envelope("vanilla", table, resamples=0)
    for _, rows in table.groupby("params"):
        there = np.interp(np.log(done.compute), np.log(rows["compute"]), np.log(rows["loss"]))
        assert (done.loss <= np.exp(there) * (1 + 1e-12)).all()


def test_an_end_of_the_sizes_is_an_edge_and_stays_out_of_the_law():
    small = curves()
    small = small[small["params"] < 2e8]
    done = fit_envelope("vanilla", small, resamples=0)
    largest = small["params"].max()
    assert (done.params == largest).any()
    assert not done.interior[done.params == largest].any()
    assert done.params[done.interior].max() < largest


def test_one_best_size_is_no_law():
    table = curves(sizes=3)
    table = table[table["compute"].between(1e19, 2e19)]
    done = fit_envelope("vanilla", table, resamples=10)
    assert done.params_law.exponent is None
    [told] = [warning for warning in done.warnings if warning.code is Code.NO_EXPONENT]
    assert all(count(size) in told.text for size in table["params"].unique())


def test_noise_that_makes_the_best_size_fall_back_is_said():
    done = fit_envelope("vanilla", curves(noise=0.05), resamples=0)
    assert any(warning.code is Code.BEST_SIZE_FALLS for warning in done.warnings)


def test_curves_that_cannot_be_compared_are_refused():
    table = curves(sizes=4)
    with pytest.raises(AnalysisError, match="needs 3 sizes"):
        fit_envelope("vanilla", table[table["params"] < 1e8])
    rank = table.groupby("params").ngroup()
    apart = table.assign(compute=table["compute"] * 1e6**rank)
    with pytest.raises(AnalysisError, match="do not overlap"):
        fit_envelope("vanilla", apart)
    single = table.groupby("params").head(1)
    with pytest.raises(AnalysisError, match="there are 0"):
        fit_envelope("vanilla", single)


def test_a_size_with_one_compute_is_left_out_by_name():
    table = pd.concat([curves(), curves().head(1).assign(params=3e7)])
    done = fit_envelope("vanilla", table, resamples=0)
    assert any(warning.code is Code.SIZES_WITHOUT_CURVE for warning in done.warnings)
    assert done.n_curves == 24


def test_points_without_a_budget_stand_at_6nd():
    table = pd.DataFrame({"params": [2.0, 2.0], "tokens": [3.0, 5.0], "budget": [7.0, np.nan]})
    assert from_points(table)["compute"].tolist() == [7.0, 60.0]


def test_the_envelope_of_porian_agrees_with_approach_2(public_points):
    content = json.loads(invoke(public_points / "porian_rw_tuned.csv", "--json").stdout)
    model = content["models"]["model"]
    assert model["a"] == pytest.approx(0.497, abs=0.02)
    low, high = model["a_interval"]
    assert low < 0.497 < high


def write_metrics(folder: Path, lines: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_metrics_give_one_curve_a_trunk_or_run(store, table, edit_result):
    for row in table.to_dict("records"):
        if row["model"] == "mor":
            edit_result(row["run_id"], trunk=f"mor-{row['size']}-trunk-0")
    for size, params in table.groupby("size")["params"].first().items():
        spent = np.geomspace(1e9, 1e12, 60)
        loss = 2 + 0.03 * np.log(params / (1e5 * np.sqrt(spent / 1e11))) ** 2
        lines = [
            json.dumps({"step": i, "loss": y, "tokens": x / (6 * params), "spent": x})
            for i, (x, y) in enumerate(zip(spent, loss, strict=True))
        ]
        write_metrics(store / f"mor-{size}-trunk-0", [*lines, "", '{"loss": NaN, "tok', "[1]"])
    points = load_points(store, wanted=Wanted(LAW_NUMBERS, ("trunk",)))
    found, warnings = from_metrics(points.table)
    assert set(found["model"]) == {"mor"}
    assert found["params"].nunique() == 7
    assert [one.code for one in warnings] == [Code.NO_METRICS, Code.DAMAGED]
    assert "No curve for 21 runs without metrics" in warnings[0].text
    assert "21 lines" in warnings[1].text
    content = json.loads(invoke(store, "--curves", "metrics", "--json", "--bootstrap", 20).stdout)
    assert content["models"]["mor"]["a"] == pytest.approx(0.5, abs=0.05)
    words = invoke(store, "--curves", "metrics", "--bootstrap", 0).stdout
    assert "N_opt ~ C^" in words
    assert "the best size is" in words


def test_metrics_that_are_not_there_are_refused(store, table, tmp_path):
    assert "has a metrics.jsonl" in invoke(store, "--curves", "metrics").stderr
    points = tmp_path / "points.csv"
    table[["model", "budget", "params", "tokens", "loss"]].to_csv(points, index=False)
    result = invoke(points, "--curves", "metrics")
    assert result.exit_code == 2
    assert "--curves points" in result.stderr
