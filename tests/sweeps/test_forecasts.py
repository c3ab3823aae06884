"""`launch.forecast=true` writes what the study's points say before the next budget runs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from ledger.plan_file import StudyFolder
from sweeps.forecasts import forecast
from tests.analysis.report.conftest import build


def plan(*runs: tuple[float, str]):
    entries = [SimpleNamespace(budget=budget, status=status) for budget, status in runs]
    return SimpleNamespace(as_file=lambda: SimpleNamespace(runs=entries))


@pytest.fixture
def console(capsys):
    return Console(width=200)


def test_the_budgets_that_wait_are_forecast_from_what_has_run(tmp_path, console, capsys):
    folder = StudyFolder(build(tmp_path))
    forecast(plan((1e12, "done"), (1e13, "planned"), (1.65e13, "planned")), folder, console)
    (file,) = (folder.path / "forecasts").glob("*.json")
    content = json.loads(file.read_text())
    assert {row["budget"] for row in content["predictions"]} == {1e13, 1.65e13}
    assert str(file) in capsys.readouterr().out


def test_nothing_waits_nothing_is_written(tmp_path, console, capsys):
    folder = StudyFolder(build(tmp_path))
    forecast(plan((1e12, "done")), folder, console)
    assert not (folder.path / "forecasts").exists()
    assert capsys.readouterr().out == ""


def test_a_study_without_points_is_launched_all_the_same(tmp_path, console, capsys):
    forecast(plan((1e13, "planned")), StudyFolder(tmp_path / "studies" / "new"), console)
    assert "launch.forecast" in capsys.readouterr().out


def test_points_that_no_law_fits_are_said_and_no_file_is_left(tmp_path, console, capsys):
    folder = StudyFolder(build(tmp_path))
    for file in Path(tmp_path / "runs").glob("*/result.json"):
        if json.loads(file.read_text())["budget"] > 1e10:
            file.unlink()
    forecast(plan((1e13, "planned")), folder, console)
    said = capsys.readouterr().out
    assert "launch.forecast" in said
    assert "Traceback" not in said
    assert not (folder.path / "forecasts").exists()
