from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from analysis.fits.parametric.laws import Chinchilla, Joint
from analysis.fits.parametric.optimum import fit_law
from analysis.fits.parametric.solver import Problem, _normal_equations, condition, polish, score
from tests.analysis.laws import law_table, looped_table

THETA = np.array([[6.0, 0.34, 7.3, 0.3, 0.5, 0.4], [4.0, 0.2, 8.0, 0.4, 0.3, -0.3]])


def problem_of(kind: str, delta: float = 1e-3) -> Problem:
    if kind == "joint":
        table = looped_table(0.01)
        return Problem(Joint.of(table), np.log(table["loss"].to_numpy(float)), delta)
    table = law_table(0.01)
    return Problem(Chinchilla.of(table), np.log(table["loss"].to_numpy(float)), delta)


def test_the_law_is_the_sum_that_it_says():
    table = looped_table()
    theta = THETA[:1]
    a, alpha, b, beta, e, phi = theta[0]
    size = table["n_once"] + table["r"] ** phi * table["n_rec"]
    by_hand = np.exp(e) + np.exp(a) * size**-alpha + np.exp(b) * table["tokens"] ** -beta
    np.testing.assert_allclose(np.exp(Joint.of(table).log_loss(theta)[0]), by_hand, rtol=1e-12)
    plain = Chinchilla.of(table.assign(params=size))
    np.testing.assert_allclose(
        plain.log_loss(theta[:, :5]), Joint.of(table).log_loss(theta), rtol=1e-12
    )


def test_the_objective_is_a_sum_of_huber_losses():
    problem = problem_of("chinchilla")
    theta = THETA[:, :5]
    r = problem.law.log_loss(theta) - problem.log_loss
    by_hand = np.where(np.abs(r) <= 1e-3, r**2 / 2, 1e-3 * (np.abs(r) - 5e-4)).sum(axis=1)
    np.testing.assert_allclose(score(problem, theta), by_hand, rtol=1e-12)
    doubled = replace(problem, weights=np.full(problem.points, 2.0))
    np.testing.assert_allclose(score(doubled, theta), 2 * by_hand, rtol=1e-12)


@pytest.mark.parametrize("kind", ["chinchilla", "joint"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("delta", [1e-3, 10.0, None])
def test_gradient_and_hessian_are_the_derivatives(kind, delta, weighted):
    problem = problem_of(kind, delta or 1e-3)
    weights = np.random.default_rng(0).integers(0, 4, (2, problem.points)) * 1.0
    problem = replace(problem, weights=weights if weighted else None, raw=delta is None)
    theta = THETA[:, : len(problem.law.parameters)]
    slope, _, hessian = _normal_equations(problem, theta)
    for column in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, column] = 1e-5
        by_value = (score(problem, theta + step) - score(problem, theta - step)) / 2e-5
        np.testing.assert_allclose(slope[:, column], by_value, rtol=1e-5, atol=1e-8)
        if delta != 1e-3:  # no kinks: the gradient is smooth, too
            ends = [_normal_equations(problem, theta + s)[0] for s in (step, -step)]
            by_slope = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(hessian[:, column], by_slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["chinchilla", "joint"])
def test_it_ends_no_higher_than_scipy_and_with_no_slope(kind):
    problem = problem_of(kind)
    theta = THETA[:1, : len(problem.law.parameters)]
    ours = polish(problem, theta)
    theirs = minimize(
        lambda x: score(problem, x[None])[0],
        ours.theta[0] * 1.02,
        method="Nelder-Mead",
        options={"maxiter": 20000, "maxfev": 20000, "xatol": 1e-10, "fatol": 1e-16},
    )
    assert ours.objective[0] <= theirs.fun * (1 + 1e-7)
    assert ours.gradient[0] < 1e-8


@pytest.mark.parametrize("sizes", [8, 30])
def test_squares_of_the_loss_end_where_variable_projection_ends(sizes):
    """For given exponents the law is linear in E, A and B; a search over the two is left."""
    table = law_table(0.01, sizes=sizes)
    loss = table["loss"].to_numpy(float)
    params, tokens = (table[name].to_numpy(float) for name in ("params", "tokens"))

    def squares(exponents: np.ndarray) -> float:
        terms = params ** -exponents[0], tokens ** -exponents[1], np.ones_like(params)
        design = np.stack([term / term.mean() for term in terms], axis=1)
        found = np.linalg.lstsq(design, loss, rcond=None)[0]
        return float(np.sum((design @ found - loss) ** 2))

    theirs = minimize(squares, [0.34, 0.3], method="Nelder-Mead", options={"xatol": 1e-9})
    fit = fit_law(Problem(Chinchilla.of(table), np.log(loss), raw=True))
    assert fit.certificate.objective == pytest.approx(0.5 * theirs.fun, rel=1e-9)
    assert fit.values["alpha"] == pytest.approx(theirs.x[0], rel=1e-4)
    assert fit.certificate.gradient_norm < 1e-7


@pytest.mark.parametrize("kind", ["chinchilla", "joint"])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_projection_finds_the_coefficients_of_exact_losses(kind, power):
    law = problem_of(kind).law
    theta = THETA[:1, : len(law.parameters)]
    loss = np.exp(law.log_loss(theta)[0])
    away = theta + np.array([[1.0, 0, -2.0, 0, 0.5, 0]])[:, : theta.shape[1]]
    np.testing.assert_allclose(law.projected(away, loss, power), theta, rtol=1e-4)


def test_starts_in_a_batch_end_where_they_end_alone():
    problem = problem_of("chinchilla")
    theta = np.concatenate([THETA[:, :5], THETA[:, :5] * 1.1])
    together = polish(problem, theta)
    for row in range(len(theta)):
        alone = polish(problem, theta[[row]])
        assert alone.objective[0] == pytest.approx(together.objective[row], rel=1e-9)


def test_starts_that_score_nothing_stay_where_they_are():
    theta = THETA[:, :5].copy()
    theta[:, 4] = np.nan
    ended = polish(problem_of("chinchilla"), theta)
    np.testing.assert_array_equal(ended.theta, theta)
    assert np.isinf(ended.gradient).all()


def test_a_weight_of_two_is_a_point_that_stands_twice():
    table = law_table(0.01)
    drawn = np.random.default_rng(1).integers(0, 4, len(table))
    weighted = Problem(
        Chinchilla.of(table), np.log(table["loss"].to_numpy(float)), weights=drawn * 1.0
    )
    repeated = table.loc[table.index.repeat(drawn)]
    plain = Problem(Chinchilla.of(repeated), np.log(repeated["loss"].to_numpy(float)))
    left, right = polish(weighted, THETA[:1, :5]), polish(plain, THETA[:1, :5])
    np.testing.assert_allclose(left.theta, right.theta, rtol=1e-6)


def test_starts_that_overflow_are_kept_out_and_nothing_is_raised():
    problem = problem_of("chinchilla")
    wild = np.array([[1e308, 1e308, 0, 0, 0], [0, -1e3, 0, -1e3, 0], [6.0, 0.3, 7, 0.3, 0.5]])
    with np.errstate(all="ignore"):
        ended = polish(problem, wild)
    assert np.isfinite(ended.objective[2])
    assert ended.gradient[2] < 1e-7


def test_one_budget_is_worse_conditioned_than_five():
    table = law_table(0.003)
    one = law_table(0.003, sizes=40, budgets=1)
    conditions = []
    for points in (table, one):
        problem = Problem(Chinchilla.of(points), np.log(points["loss"].to_numpy(float)))
        conditions.append(condition(problem, THETA[0, :5]))
    assert conditions[1] > 10 * conditions[0]
