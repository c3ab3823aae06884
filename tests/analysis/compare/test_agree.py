"""Cases under other conventions are compared at equal compute, and verdicts follow the answers."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.compare.agree import (
    LEVEL,
    Answer,
    Case,
    at_equal_compute,
    conclusions,
    make_case,
    spreads,
)
from analysis.fits.bootstrap import p_of_reach
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.parametric.lawfit import Asked, report
from analysis.fits.parametric.laws import Chinchilla
from analysis.points.table import tidy
from analysis.report.fits import optimum_of_law
from tests.analysis.conftest import build_store
from tests.analysis.laws import TRUTH, law_table


def test_loss_moves_along_the_curve_of_its_own_size(make_table):
    """With L = k C^-0.1 at each size the loss at any compute is known."""
    table = make_table(models=("mor",))
    factor = {size: 1 + 0.2 * i for i, size in enumerate(table["params"].unique())}
    level = {size: 3 + 0.1 * i for i, size in enumerate(table["params"].unique())}
    spent = table["budget"] * table["params"].map(factor)
    table = table.assign(loss=table["params"].map(level) * spent**-0.1, tokens=spent / 7)
    moved, farthest = at_equal_compute(table, dict(zip(table["run_id"], spent, strict=True)))
    assert moved.groupby("budget").size().tolist() == [7, 7, 7]
    expected = moved["params"].map(level) * moved["budget"] ** -0.1
    np.testing.assert_allclose(moved["loss"], expected, rtol=1e-12)
    np.testing.assert_allclose(moved["tokens"], moved["budget"] / 7, rtol=1e-12)
    # The common compute is the geometric mean of what was spent.
    means = np.exp(np.log(spent).groupby(table["budget"]).mean())
    np.testing.assert_allclose(np.unique(moved["budget"]), means, rtol=1e-12)
    ends = np.array(list(factor.values()))
    middle = np.exp(np.log(ends).mean())
    assert farthest == pytest.approx(max(ends[-1] / middle, middle / ends[0]))


def test_runs_that_spent_alike_are_not_moved(make_table):
    table = make_table()
    spent = dict(zip(table["run_id"], 3 * table["budget"], strict=True))
    moved, farthest = at_equal_compute(table, spent)
    assert farthest == pytest.approx(1)
    together = table.merge(moved, on="run_id", suffixes=("", "_moved"))
    np.testing.assert_allclose(together["loss_moved"], together["loss"])
    np.testing.assert_allclose(together["budget_moved"], 3 * together["budget"])


def test_a_convention_that_charges_a_model_double_takes_its_lead_away(make_table):
    """Two models of one law; mor spends twice as much under `exact` and half of the paper's."""
    table = make_table(noise=0.0005, seeds=(0, 1))
    better = table["model"] == "mor"
    # Falling with compute, so that compute is worth something; mor has a head start.
    falls = (table["budget"] / 1e10) ** -0.05
    table = table.assign(loss=table["loss"] * falls * np.where(better, 0.99, 1.0), trunk=None)
    spent = table["budget"] * np.where(better, 2.0, 1.0)
    asked = {"resamples": 300, "seed": 0}
    paper = make_case(table, "paper", "nonembedding", None, **asked)
    exact = make_case(
        table, "exact", "nonembedding", dict(zip(table["run_id"], spent, strict=True)), **asked
    )
    question = "leads at the largest budget: vanilla or mor"
    assert paper.answers[question] == Answer("mor", True)
    assert exact.answers[question] == Answer("vanilla", True)
    found = {c.question: c for c in conclusions([paper, exact])}
    assert found[question].survives == "changes"
    # Charging every size of a model alike leaves its exponent alone.
    for left, right in zip(paper.exponents, exact.exponents, strict=True):
        if left.approach == 2:
            assert right.a == pytest.approx(left.a, abs=0.01)


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([Answer("a", True), Answer("a", True)], ("holds", "a")),
        ([Answer("a", True), Answer("a", False)], ("leans", "a")),
        ([Answer("a", True), Answer("b", False)], ("changes", None)),
        ([Answer("a", True), Answer(None)], ("unknown", None)),
    ],
)
def test_what_survives(answers, verdict):
    cases = [Case(str(i), "total", (), {"who": answer}, 1.0, 0) for i, answer in enumerate(answers)]
    (found,) = conclusions(cases)
    assert (found.survives, found.answer) == verdict


def test_the_optimum_of_a_law_is_the_closed_form_where_compute_is_6nd():
    table = law_table()
    fit = report(Chinchilla.of(table), table, Asked(resamples=0)).fit
    a, b = TRUTH["beta"], TRUTH["alpha"]
    ratio = TRUTH["alpha"] * TRUTH["A"] / (TRUTH["beta"] * TRUTH["B"])
    expected = ratio ** (1 / (a + b)) * (table["budget"].max() / 6) ** (a / (a + b))
    assert optimum_of_law(fit, table) == pytest.approx(expected, rel=0.01)


def test_three_approaches_agree_on_points_of_one_law():
    # One fine grid of sizes for all budgets, so that approach 1 has curves, around the optima.
    sizes, budgets = np.geomspace(1e7, 3e9, 41), np.geomspace(1e19, 1e21, 9)
    grid = pd.DataFrame(
        [(size, budget / (6 * size), budget) for budget in budgets for size in sizes],
        columns=["params", "tokens", "budget"],
    )
    loss = TRUTH["E"] + TRUTH["A"] / grid["params"] ** TRUTH["alpha"]
    loss += TRUTH["B"] / grid["tokens"] ** TRUTH["beta"]
    table = tidy(grid.assign(model="vanilla", loss=loss), ("trunk",))
    case = make_case(table, "6nd", "total", None, resamples=0, seed=0)
    expected = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
    assert [e.a for e in case.exponents] == [pytest.approx(expected, abs=0.03)] * 3
    (spread,) = spreads(case)
    assert spread.exponent < 0.03
    assert spread.n_opt < 1.1


@pytest.mark.parametrize("degrees", [3.0, 20.0, np.inf])
def test_an_interval_that_ends_at_the_other_answer_has_p_0_05(degrees):
    assert p_of_reach(0.02, 0.02, degrees) == pytest.approx(0.05)
    assert p_of_reach(0.0, 0.02, degrees) == pytest.approx(1)
    assert p_of_reach(0.04, 0.02, degrees) < 0.05 < p_of_reach(0.01, 0.02, degrees)


def test_a_few_points_to_spare_prove_less_than_many_at_the_same_interval():
    assert p_of_reach(0.04, 0.02, 3) > p_of_reach(0.04, 0.02, 30) > p_of_reach(0.04, 0.02)


def test_questions_of_a_case_are_decided_together(make_table):
    """Holm: the smallest p carries the number of questions, and none is decided that its interval
    alone does not decide."""
    table = make_table(noise=0.003).assign(trunk=None)
    case = make_case(table, "paper", "total", None, resamples=200, seed=1)
    known = {q: a for q, a in case.answers.items() if a.p_value is not None}
    assert len(known) >= 5
    first = min(known, key=lambda question: known[question].p_value)
    expected = min(1.0, known[first].p_value * len(known))
    assert known[first].adjusted_p == pytest.approx(expected)
    for answer in case.answers.values():
        if answer.adjusted_p is not None:
            assert answer.adjusted_p >= answer.p_value
        assert answer.decided == (answer.adjusted_p is not None and answer.adjusted_p < LEVEL)


def test_exponents_are_ordered_by_the_reach_of_both(make_table):
    """Two models of one law: the p value of the larger exponent is that of the two intervals."""
    table = make_table(noise=0.003).assign(trunk=None)
    case = make_case(table, "paper", "total", None, resamples=300, seed=2)
    (question,) = [q for q in case.answers if q.startswith("larger a (approach 2)")]
    low, high = sorted((e for e in case.exponents if e.approach == 2), key=lambda e: e.a)
    degrees = fit_isoflop(table, resamples=300, seed=2).noise.degrees_of_freedom
    assert case.answers[question].leans == high.model
    reach = np.hypot(low.a_interval[1] - low.a, high.a - high.a_interval[0])
    expected = p_of_reach(high.a - low.a, reach, degrees)
    assert case.answers[question].p_value == pytest.approx(expected)


@pytest.fixture
def counted(tmp_path, make_table):
    """A run store whose results count FLOPs under three conventions."""
    store = build_store(tmp_path, make_table(noise=0.002))
    for number, file in enumerate(sorted(store.glob("*/result.json"))):
        result = json.loads(file.read_text())
        budget = result["budget"]
        shares = {"paper": budget, "exact": budget * (3 + 0.01 * (number % 5)), "6nd": 2 * budget}
        file.write_text(json.dumps({**result, "flops": shares}))
    return store


def agree(*arguments):
    return CliRunner().invoke(app, ["agree", *map(str, arguments)])


def test_every_convention_and_count_is_a_case(counted):
    content = json.loads(agree(counted, "--json", "--bootstrap", 100).stdout)
    names = [(case["convention"], case["params"]) for case in content["cases"]]
    assert names == [
        (convention, params)
        for params in ("nonembedding", "total")
        for convention in ("paper", "exact", "6nd")
    ]
    for case in content["cases"]:
        for spread in case["spreads"]:
            own = [e["a"] for e in case["exponents"] if e["model"] == spread["model"]]
            known = [a for a in own if a is not None]
            assert spread["exponent"] == pytest.approx(max(known) - min(known))
    assert all(len(found["answers"]) == 6 for found in content["conclusions"])
    told_p = [
        a["adjusted_p"] for found in content["conclusions"] for a in found["answers"].values()
    ]
    assert any(p is not None and 0 <= p <= 1 for p in told_p)
    told = agree(counted, "--bootstrap", 100).stdout
    spread = content["cases"][0]["spreads"][0]
    assert f"{spread['model']}: the approaches differ by {spread['exponent']:.3f}" in told


def test_a_convention_that_a_run_did_not_count_is_no_case(counted):
    file = next(iter(counted.glob("*/result.json")))
    result = json.loads(file.read_text())
    del result["flops"]["6nd"]
    file.write_text(json.dumps(result))
    content = json.loads(agree(counted, "--json", "--bootstrap", 0).stdout)
    assert {case["convention"] for case in content["cases"]} == {"paper", "exact"}


def test_points_of_a_file_have_one_case(tmp_path, make_table):
    path = tmp_path / "points.csv"
    pd.DataFrame(make_table()).drop(columns="convention").to_csv(path, index=False)
    content = json.loads(agree(path, "--json", "--bootstrap", 50).stdout)
    assert [case["params"] for case in content["cases"]] == ["as given"]
    told = agree(path, "--bootstrap", 50)
    assert re.search(r"\d \[-?\d", told.stdout)  # an interval stands as it is
    assert "\\" not in told.stdout
