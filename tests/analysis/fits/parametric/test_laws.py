"""A new law is one class and one registration: the solver, intervals and hold-outs take it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from analysis.fits.parametric.lawfit import Asked, as_json, report
from analysis.fits.parametric.laws import Expansion, Floats, Law, Rows, Term
from analysis.fits.parametric.registry import LAWS, law_named


@dataclass(frozen=True)
class DataOnly(Law):
    """L = E + B / D^beta: three parameters, and no exponent of compute."""

    log_tokens: Floats
    name: ClassVar[str] = "data_only"
    formula: ClassVar[str] = "L = E + B/D^beta"
    columns: ClassVar[tuple[str, ...]] = ("tokens", "loss")
    terms: ClassVar[tuple[Term, ...]] = (Term("B", "beta", "tokens"), Term("E", None, "tokens"))
    in_logs: ClassVar[tuple[str, ...]] = ("B", "E")
    start_grid: ClassVar[tuple[Floats, ...]] = (
        np.arange(0, 30, 5.0),
        np.arange(0, 2.5, 0.5),
        np.arange(-1, 1.5, 0.5),
    )

    @property
    def parameters(self) -> tuple[str, ...]:
        return ("B", "beta", "E")

    @classmethod
    def of(cls, table: pd.DataFrame) -> "DataOnly":
        return cls(np.log(table["tokens"].to_numpy(float)))

    def take(self, rows: Rows) -> "DataOnly":
        return DataOnly(self.log_tokens[rows])

    def log_loss(self, theta: Floats) -> Floats:
        data = theta[:, 0:1] - theta[:, 1:2] * self.log_tokens
        return np.asarray(np.logaddexp(data, theta[:, 2:3]))

    def term_shares(self, theta: Floats) -> tuple[Floats, ...]:
        data = theta[:, 0:1] - theta[:, 1:2] * self.log_tokens
        log_loss = self.log_loss(theta)
        return np.exp(data - log_loss), np.exp(theta[:, 2:3] - log_loss)

    def expand(self, theta: Floats) -> Expansion:
        data, floor = self.term_shares(theta)
        v = np.broadcast_to(self.log_tokens, data.shape)
        directions = np.stack([np.ones_like(v), -v], axis=1)

        def add_curvature(hessian: Floats, force: Floats) -> None:
            weighted = directions * (force * data)[:, None]
            hessian[:, :2, :2] += weighted @ directions.transpose(0, 2, 1)
            hessian[:, 2, 2] += (force * floor).sum(axis=1)

        jacobian = np.concatenate([directions * data[:, None], floor[:, None]], axis=1)
        return Expansion(self.log_loss(theta), jacobian, add_curvature)


@pytest.fixture
def points() -> pd.DataFrame:
    tokens = np.geomspace(1e8, 1e11, 24)
    noise = np.exp(np.random.default_rng(0).normal(0, 1e-4, len(tokens)))
    names = ("model", "params", "budget", "trunk", "run_id")
    table = pd.DataFrame({"tokens": tokens, "loss": (1.7 + 400 / tokens**0.3) * noise})
    return table.assign(**dict.fromkeys(names, np.nan), source="drawn").assign(params=1e8)


def test_a_law_of_one_class_is_fitted_by_name(points, monkeypatch):
    monkeypatch.setitem(LAWS, "data_only", f"{__name__}:DataOnly")
    monkeypatch.setitem(__import__("sys").modules, __name__, type("Here", (), globals()))
    law = law_named("data_only")
    done = report(law.of(points), points, Asked(resamples=200))
    assert done.fit.values == pytest.approx({"B": 400, "beta": 0.3, "E": 1.7}, rel=0.02)
    assert done.fit.certificate.gradient_norm < 1e-8
    assert 1 <= done.fit.certificate.condition < 1e5
    for name, truth in (("beta", 0.3), ("E", 1.7)):
        low, high = done.intervals.of[name]
        assert low < truth < high
    assert abs(done.hold_out.top.mean) < 1e-3
    content = as_json(done)
    assert (content["law"], content["exponents"]) == ("data_only", {})


@pytest.mark.parametrize("name", LAWS)
def test_a_registered_law_knows_its_own_name(name):
    law = law_named(name)
    assert law.name == name
    assert {term.coefficient for term in law.terms} <= set(law.in_logs)
