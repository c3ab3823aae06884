"""Tables of scores: which runs stand together, what is best, and what is left out."""

from pathlib import Path

import pytest

from analysis.report.evaluations import evaluations
from ledger.evaluation import Evaluation
from ledger.folder import RunFolder
from tests.analysis.report.conftest import build, load, write
from tests.analysis.report.test_page import text_of


@pytest.fixture
def study(tmp_path):
    return build(tmp_path)


def score(points, number, name="mine", value=1.0, **fields):
    """Give a run a score; returns the run's id."""
    row = points.table.iloc[number]
    one = Evaluation(
        task_set=name,
        unit=fields.pop("unit", "bits per byte"),
        scores={"a": value, "avg": value},
        tasks={"a": {"n": 5.0}},
        harness={"name": "harness", "version": "0.4.13"},
        **fields,
    )
    RunFolder(Path(row["source"])).write_evaluation(name, one)
    return row["run_id"]


def test_runs_on_the_same_tasks_stand_in_one_table_with_the_best_marked(study):
    points = load(study)
    assert evaluations(points.table) == []
    low = score(points, 0, value=1.25, documents="f")
    high = score(points, 1, value=1.5, documents="f", cut=3)
    other = score(points, 2, value=0.1, documents="changed")
    best = score(points, 3, name="paper", value=40.0, unit="accuracy, %")
    score(points, 4, name="paper", value=30.0, unit="accuracy, %")
    mine, paper, changed = evaluations(points.table)
    assert [(row.run, row.cells[0], row.best[0]) for row in mine.rows] == [
        (low, "1.2500", True),
        (high, "1.5000", False),
    ]
    assert "3 requests" in mine.said
    assert [row.run for row in paper.rows if row.best[-1]] == [best]
    assert [(row.run, row.best) for row in changed.rows] == [(other, (False, False))]


def test_the_page_has_them(study):
    points = load(study)
    run = score(points, 0, value=1.2345)
    (RunFolder(Path(points.table.iloc[1]["source"])).path / "evaluations").mkdir()
    RunFolder(Path(points.table.iloc[1]["source"])).evaluation_file("old").write_text(
        '{"schema": 99}'
    )
    said = text_of(write(study))
    assert "mine: bits per byte" in said
    assert "1.2345" in said
    assert run in said
