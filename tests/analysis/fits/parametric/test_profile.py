"""Points that do not hold the exponents get no interval of them, and say what to train."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.cautions import Code
from analysis.commands.cli import app
from analysis.design.law import law_of
from analysis.errors import AnalysisError
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.parametric.lawfit import Asked, as_json, as_lines, report
from analysis.fits.parametric.laws import Chinchilla, Joint
from analysis.fits.parametric.optimum import fit_law
from analysis.fits.parametric.profile import judged, profile
from analysis.fits.parametric.shares import ByShare, from_share, to_share
from analysis.fits.parametric.solver import Problem, _normal_equations, score
from analysis.points.table import tidy
from analysis.report.fits import exponents
from benchmarks.coverage import TRUTH
from benchmarks.coverage_isoflop import GRIDS, LAWS, Law, draw
from tests.analysis.laws import LOOPED, law_table, looped_table

PARAMS = np.geomspace(5e7, 2e10, 12)
FEW = {"starts": 200, "resamples": 60}
TERMS = ("A", "alpha", "B", "beta", "E", "a", "b")


def ladder(law: Law, tokens_a_param, noise: float = 0.003, seed: int = 0) -> pd.DataFrame:
    """Every size at each of these numbers of tokens a parameter."""
    ratios = np.atleast_1d(tokens_a_param)
    params = np.tile(PARAMS, len(ratios))
    tokens = params * np.repeat(ratios, len(PARAMS))
    loss = law.loss(params, tokens)
    loss = loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(params)))
    table = {"params": params, "tokens": tokens, "loss": loss, "budget": 6 * params * tokens}
    return tidy(pd.DataFrame(table).assign(model="vanilla"), ("trunk",))


def fit(table, starts: int = 100):
    return fit_law(Problem(Chinchilla.of(table), np.log(table["loss"].to_numpy(float))), starts)


@pytest.mark.parametrize("ratio", [5, 20, 80])
@pytest.mark.parametrize("name", LAWS)
def test_a_ladder_is_refused_whatever_the_law(name, ratio):
    for noise in (0.0, 0.003):
        seen = profile(fit(ladder(LAWS[name], ratio, noise)))
        assert seen.ray
        assert seen.open_below
        assert seen.open_above
        assert not seen.identified


@pytest.mark.parametrize("name", LAWS)
def test_the_same_sizes_with_tokens_varied_four_times_are_identified(name):
    law = LAWS[name]
    table = ladder(law, [10, 20, 40])
    seen = profile(fit(table))
    assert seen.identified
    assert seen.estimate == pytest.approx(law.a, abs=0.12)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("grid", ["demo", "table 9", "wide", "drifting"])
def test_isoflop_grids_are_identified(name, grid):
    table = draw(np.random.default_rng(0), LAWS[name], GRIDS[grid], 0.003, 0.0)
    assert profile(fit(table[table["model"] == "mor"])).identified


def test_a_ladder_whose_tokens_are_a_little_off_is_refused_by_the_profile():
    """No exact ray: what is refused rests on the losses, on one side or on both."""
    law = Law(TRUTH["E"], TRUTH["A"], TRUTH["alpha"], TRUTH["B"], TRUTH["beta"])
    refused = []
    for seed in range(8):
        jitter = np.exp(0.02 * np.random.default_rng(seed).normal(size=len(PARAMS)))
        table = ladder(law, 20)
        tokens = table["tokens"] * jitter
        noise = np.exp(0.005 * np.random.default_rng(100 + seed).normal(size=len(PARAMS)))
        loss = law.loss(PARAMS, tokens.to_numpy(float)) * noise
        seen = profile(fit(table.assign(tokens=tokens, loss=loss)))
        assert not seen.ray
        refused.append(not seen.identified)
    assert sum(refused) >= 7


def test_tokens_that_never_change_leave_the_exponents_open():
    law = LAWS["besiroglu"]
    params = np.geomspace(5e7, 2e10, 20)
    tokens = np.full(20, 1e10)
    loss = law.loss(params, tokens) * np.exp(0.003 * np.random.default_rng(0).normal(size=20))
    table = pd.DataFrame({"params": params, "tokens": tokens, "loss": loss, "model": "vanilla"})
    table = tidy(table.assign(budget=6 * params * tokens), ("trunk",))
    assert not report(Chinchilla.of(table), table, Asked(**FEW)).identified


def test_a_fit_of_a_ladder_has_no_interval_that_pretends():
    table = ladder(LAWS["besiroglu"], 20)
    done = report(Chinchilla.of(table), table, Asked(**FEW))
    assert done.warnings[0].code is Code.NOT_IDENTIFIED
    assert "vary D/N" in done.warnings[0].text
    assert all(done.intervals.of[name] is None for name in TERMS)
    content = as_json(done)
    assert content["identified"] is False
    assert content["profile"]["ray"] is True
    assert content["interval"]["a"] is None
    assert sum("not identified: vary D/N" in line for line in as_lines(done)) == len(TERMS)


def test_a_fit_of_a_grid_keeps_its_intervals():
    table = law_table(0.003)
    done = report(Chinchilla.of(table), table, Asked(**FEW))
    assert done.identified
    assert all(done.intervals.of[name] is not None for name in TERMS)
    assert Code.NOT_IDENTIFIED not in {w.code for w in done.warnings}


def test_joint_ladders_are_refused_and_joint_grids_are_not():
    table = looped_table()
    grid = report(Joint.of(table), table, Asked(**FEW))
    assert grid.identified
    size = table["n_once"] + table["r"] ** LOOPED["phi"] * table["n_rec"]
    tokens = 20 * size
    loss = LOOPED["E"] + LOOPED["A"] * size ** -LOOPED["alpha"]
    loss = loss + LOOPED["B"] * tokens ** -LOOPED["beta"]
    loss = loss * np.exp(0.002 * np.random.default_rng(0).normal(size=len(table)))
    rays = table.assign(tokens=tokens, loss=loss)
    assert not report(Joint.of(rays), rays, Asked(**FEW)).identified


def test_every_user_of_the_law_says_it():
    table = ladder(LAWS["besiroglu"], 20)
    with pytest.raises(AnalysisError, match="vary D/N"):
        law_of(table, "vanilla")
    result = fit_isoflop(law_table(0.003), resamples=60, seed=0)
    known = {e.approach: e for e in exponents(law_table(0.003), result)}
    assert known[3].a is not None
    rays = {e.approach: e for e in exponents(table, result)}
    assert rays[3].a is None
    assert rays[3].a_interval is None
    assert rays[3].n_opt is None
    assert "vary D/N" in rays[3].reason


def test_agree_shows_it_in_its_table_and_says_why(tmp_path):
    path = tmp_path / "ladder.csv"
    ladder(LAWS["besiroglu"], 20).to_csv(path, index=False)
    asked = ["agree", str(path), "--bootstrap", "60"]
    said = CliRunner().invoke(app, asked)
    assert said.exit_code == 0
    assert "not identified" in said.stdout
    content = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert sum("vary D/N" in warning for warning in content["warnings"]) == 1
    (case,) = content["cases"]
    assert case["exponents"][2]["a"] is None
    growth = [c for c in content["conclusions"] if "approach 3" in c["question"]]
    assert {c["survives"] for c in growth} == {"unknown"}


def test_the_command_says_it_in_words_and_json(tmp_path):
    path = tmp_path / "ladder.csv"
    ladder(LAWS["besiroglu"], 20)[["params", "tokens", "loss"]].to_csv(path, index=False)
    asked = ["fit", str(path), "--bootstrap", "60", "--starts", "200"]
    said = CliRunner().invoke(app, asked)
    assert said.exit_code == 0
    assert "not identified: vary D/N" in said.output
    content = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert content["identified"] is False
    assert any("vary D/N" in warning for warning in content["warnings"])


def test_the_profile_is_the_least_objective_at_each_exponent():
    """No parameters at hand with that exponent fit better."""
    table = law_table(0.003)
    found = fit(table)
    seen = profile(found)
    assert (seen.rise > -1e-9).all()  # rounding apart
    assert (np.diff(seen.rise[seen.held > seen.estimate]) > 0).all()
    assert (np.diff(seen.rise[seen.held < seen.estimate]) < 0).all()
    assert judged(found).held.tolist() == seen.held.tolist()


def test_the_law_by_shares_is_the_law_in_other_coordinates():
    table = law_table(0.01)
    law = Chinchilla.of(table)
    theta = np.array([[6.0, 0.34, 7.3, 0.3, 0.5], [5.0, 0.6, 8.0, 0.2, 0.3]])
    turned = to_share(theta)
    np.testing.assert_allclose(from_share(turned), theta)
    problem = Problem(ByShare(law), np.log(table["loss"].to_numpy(float)), 10.0)
    np.testing.assert_allclose(problem.law.log_loss(turned), law.log_loss(theta))
    slope, _, hessian = _normal_equations(problem, turned)
    for column in range(5):
        step = 1e-5 * np.eye(5)[column]
        rise = (score(problem, turned + step) - score(problem, turned - step)) / 2e-5
        np.testing.assert_allclose(slope[:, column], rise, rtol=1e-5, atol=1e-7)
        ahead, behind = (_normal_equations(problem, turned + s)[0] for s in (step, -step))
        np.testing.assert_allclose(
            hessian[:, column], (ahead - behind) / 2e-5, rtol=1e-4, atol=1e-5
        )
