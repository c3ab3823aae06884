"""What an autopilot decides from what is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger.autopilot import LAUNCH, MET, REFUSED, SPENT, STOP, Known
from ledger.errors import UserError
from mor.config import Config, ConfigError
from sweeps.autopilot.decide import Candidate, Points, Until, decide, met, parse_until

UNTIL = Until("a", 0.1)
WIDE = Known(model="mor", value=0.5, low=0.3, high=0.7)
NARROW = Known(model="vanilla", value=0.5, low=0.41, high=0.59)
UNKNOWN = Known(model="recursive", why="too few points")


def candidate(model: str = "mor", hours: float = 1.0) -> Candidate:
    return Candidate(model, "9k", 1e10, hours, 0.2)


@pytest.mark.parametrize("text", ["a +- 0.02", "a+-2e-2", " a ± .02 ", "a +/- 0.02"])
def test_a_target_is_an_exponent_and_a_half_width(text: str) -> None:
    assert parse_until(text) == Until("a", 0.02)


@pytest.mark.parametrize(
    "text", ["", "a", "c +- 0.1", "a +- 0", "a +- -1", "a +- x", "a +- 1e", "a 1"]
)
def test_another_target_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_until(text)
    assert raised.value.setting == "--until"


def test_a_model_without_an_interval_is_not_known() -> None:
    assert [met(one, UNTIL) for one in (WIDE, NARROW, UNKNOWN)] == [False, True, False]


def test_it_stops_where_every_model_is_known() -> None:
    decision = decide([NARROW], [candidate("vanilla")], UNTIL, 9.0)
    assert (decision.action, decision.reason, decision.runs) == (STOP, MET, ())


def test_it_runs_what_is_suggested_for_models_that_are_not_known() -> None:
    wanted = [candidate(), candidate("vanilla"), candidate("recursive")]
    decision = decide([WIDE, NARROW, UNKNOWN], wanted, UNTIL, 9.0)
    assert decision.action == LAUNCH
    assert [run.model for run in decision.runs] == ["mor", "recursive"]


def test_it_takes_what_the_hours_pay_for_and_stops_where_that_is_nothing() -> None:
    wanted = [candidate(hours=2.0), candidate(hours=4.0), candidate(hours=0.5)]
    taken = decide([WIDE], wanted, UNTIL, 3.0)
    assert [run.hours for run in taken.runs] == [2.0, 0.5]
    assert decide([WIDE], wanted, UNTIL, 0.4).reason == SPENT
    assert decide([WIDE], wanted, UNTIL, -1.0).reason == SPENT


def test_it_stops_where_nothing_is_suggested() -> None:
    assert decide([WIDE], [candidate("vanilla")], UNTIL, 9.0).reason == REFUSED


def test_a_point_gets_seeds_that_no_run_of_it_has(toy_run) -> None:
    base: Config = replace(toy_run("vanilla"), budget=1e9)
    configs = [replace(base, seed=0), replace(base, seed=4), replace(base, budget=2e9, seed=9)]
    points, size = Points(configs), base.size.name
    assert [points.next_seed("vanilla", size, 1e9) for _ in range(2)] == [5, 6]
    run = points.run("vanilla", size, 1e9, 6)
    assert run == replace(base, seed=6)
    with pytest.raises(UserError):
        points.run("vanilla", size, 4e9, 0)
