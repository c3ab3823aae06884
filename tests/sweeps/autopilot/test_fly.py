"""Rounds on a real study: what is launched, what a second start finds, what stops it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ledger.autopilot import LAUNCH, STOP, folder_of_rounds, rounds
from ledger.errors import UserError
from ledger.plan_file import read_plan
from mor.config import ConfigError
from sweeps.autopilot import fly
from sweeps.autopilot.fly import Autopilot
from sweeps.commands.find import study_view

REPO = Path(__file__).parents[3]


@pytest.fixture
def study(sweep, toy, tmp_path: Path) -> Path:
    ended = sweep("-m", *toy, "model=vanilla", "budget=6e8,1e9")
    assert ended.returncode == 0, ended.stderr
    return tmp_path / "studies" / "quick"


def pilot(study: Path, hours: float = 1.0) -> Autopilot:
    view = study_view(str(study), study.parent)
    return Autopilot(view, "a +- 0.2", hours, 2, Console(width=200))


def test_it_launches_what_is_suggested_until_the_interval_is_narrow(study, analysis) -> None:
    assert pilot(study).fly() == "met"
    view = study_view(str(study), study.parent)
    first, last = rounds(view.folder)
    assert (first.action, last.action) == (LAUNCH, STOP)
    assert (first.points, last.points) == (2, 4)
    assert [run.seed for run in first.runs] == [1, 2]
    assert all(view.ledger.state(run.run_id) == "done" for run in first.runs)
    assert first.points_digest != last.points_digest
    assert 0 < last.spent < 1
    assert pilot(study).fly() == "met"  # typed again: nothing new to say
    assert len(rounds(view.folder)) == 2


def test_rounds_are_priced_as_their_launch_is(study, analysis) -> None:
    """At the speed that the study's runs have shown, which is not what the plan assumed."""
    made = pilot(study)
    made.fly()
    first, last = rounds(made.view.folder)
    runs = {run.run_id: run for run in read_plan(made.view.folder.plan_file).runs}
    priced = [runs[run.run_id] for run in first.runs]
    assert all(run.price == "measured" for run in priced)
    assert first.price_hours == pytest.approx(sum(run.gpu_hours for run in priced), rel=0.2)
    assert made._held_by_rounds() == pytest.approx(last.spent)


def test_the_fit_of_a_single_model_is_known(study, monkeypatch) -> None:
    flat = {"exponents": {"a": 0.5}, "interval": {"a": [0.4, 0.6]}, "identified": True}
    monkeypatch.setattr(fly, "told", lambda *_: (flat, ""))
    [known], _ = pilot(study)._known()
    assert (known.model, known.low, known.high) == ("vanilla", 0.4, 0.6)


def test_a_study_that_varies_a_setting_is_for_tune(study, monkeypatch) -> None:
    curves = {f"vanilla (lr={lr})": {"exponents": {"a": 0.5}} for lr in (0.01, 0.02)}
    monkeypatch.setattr(fly, "told", lambda *_: ({"models": curves}, ""))
    with pytest.raises(UserError, match=r"analysis tune quick"):
        pilot(study).fly()
    assert not rounds(study_view(str(study), study.parent).folder)


def test_mixed_points_are_fitted_where_it_is_told_to(study, analysis) -> None:
    view = study_view(str(study), study.parent)
    Autopilot(view, "a +- 0.2", 1.0, 2, Console(width=200), allow_mixed=True).fly()
    assert {asked[0] for asked in analysis} == {"fit", "suggest"}
    assert all("--allow-mixed" in asked for asked in analysis)


def test_killed_before_its_launch_it_goes_on_with_the_same_runs(
    study, analysis, monkeypatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fly, "launch_configs", killed)
        with pytest.raises(KeyboardInterrupt):
            pilot(study).fly()
    view = study_view(str(study), study.parent)
    (first,) = rounds(view.folder)
    assert [view.ledger.state(run.run_id) for run in first.runs] == ["planned", "planned"]
    assert pilot(study).fly() == "met"
    found = rounds(view.folder)
    assert found[0] == first
    assert len(found) == 2
    assert found[1].points == 4
    assert found[1].held_before == first.held_before


def test_hours_that_pay_for_nothing_stop_it(study, analysis, monkeypatch) -> None:
    assert pilot(study, hours=1e-7).fly() == "hours"
    assert [made.action for made in rounds(study_view(str(study), study.parent).folder)] == [STOP]


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf")])
def test_hours_that_cannot_be_are_refused(study, hours: float) -> None:
    with pytest.raises(ConfigError) as raised:
        pilot(study, hours)
    assert raised.value.setting == "--gpu-hours"


def test_points_that_fit_no_law_stop_it_with_the_reason(study) -> None:
    """The real commands: two runs of one size."""
    command = [sys.executable, "-m", "sweeps", "autopilot", str(study), "--gpu-hours", "1"]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    (file,) = folder_of_rounds(study_view(str(study), study.parent).folder).glob("*.json")
    made = json.loads(file.read_text())
    assert made["action"] == STOP
    assert made["reason"].startswith("no suggestion: ")
    assert "Traceback" not in ended.stdout + ended.stderr
