"""A study's forecasts on its page: pending, scored, and one that was edited."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.fits.isoflop import fit_isoflop
from analysis.points.load import load_points
from analysis.report.forecasts import forecasts
from analysis.report.page import write_report
from tests.analysis.conftest import build_store, study_table
from tests.analysis.report.conftest import WANTED, build, plan_run

NEXT = 1e13


@pytest.fixture
def forecast(tmp_path: Path) -> Path:
    """A study with a forecast of its next budget."""
    folder = build(tmp_path)
    ended = CliRunner().invoke(
        app, ["forecast", str(folder), "--at", f"budget={NEXT:g}", "--bootstrap", "50"]
    )
    assert ended.exit_code == 0, ended.output
    return folder


def shown(folder: Path):
    points = load_points(folder, wanted=WANTED)
    fitted = fit_isoflop(points.table, resamples=20)
    return forecasts(points, fitted), points, fitted


def run_it(folder: Path) -> None:
    """The budget that was forecast has run."""
    table = study_table(budgets=(NEXT,), sizes={"100k": 1e5, "300k": 3e5, "1m": 1e6, "3m": 3e6,
                                                "10m": 1e7}, noise=0.004)  # fmt: skip
    build_store(folder.parents[1], table)
    plan = json.loads((folder / "plan.json").read_text())
    plan["runs"] += [plan_run(row) for row in table.to_dict("records")]
    (folder / "plan.json").write_text(json.dumps(plan))


def test_what_has_not_run_yet_is_pending(forecast):
    (one,), *_ = shown(forecast)
    assert len(one.rows) == 5  # two best losses, two sizes, a gap
    assert all(row[5] == "-" for row in one.rows)


def test_it_is_scored_when_it_has_run_and_stands_on_the_page(forecast):
    run_it(forecast)
    found, points, fitted = shown(forecast)
    (one,) = found
    assert {row[7] for row in one.rows} <= {"hit", "missed"}
    assert not one.notes
    page = write_report(forecast / "p.html", fitted, points, reference=False).read_text()
    assert 'id="forecasts"' in page
    sections = set(re.findall(r'<section[^>]* id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page.split("</nav>")[0])) == sections
    assert one.name in page
    assert one.total in page


def test_an_edited_forecast_is_said_and_the_page_is_written(forecast):
    (file,) = (forecast / "forecasts").glob("*.json")
    file.write_text(file.read_text().replace('"level": 0.9', '"level": 0.99'))
    found, points, fitted = shown(forecast)
    assert found[0].rows == ()
    assert len(found[0].notes) == 1
    page = write_report(forecast / "p.html", fitted, points, reference=False).read_text()
    assert file.name in page


def test_a_study_without_forecasts_has_no_section(tmp_path):
    found, points, fitted = shown(build(tmp_path))
    assert found == []
    page = write_report(tmp_path / "p.html", fitted, points, reference=False).read_text()
    assert 'id="forecasts"' not in page
