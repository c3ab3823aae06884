"""The report on W&B: its spec built offline, and saved by the real client on a loopback server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.fits.isoflop import fit_isoflop
from analysis.report.page import gather
from analysis.report.wandb_page import Place, build
from tests.analysis.conftest import result_of, study_table
from tests.analysis.report.conftest import build as build_study
from tests.analysis.report.conftest import load
from tests.analysis.wandb_backend import Backend
from tests.wandb_loopback import KEY


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_study(tmp_path_factory.mktemp("wandb"))


@pytest.fixture
def backend(monkeypatch, tmp_path) -> Iterator[Backend]:
    server = Backend()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield server
    server.close()


def test_the_spec_holds_what_the_page_says(study, monkeypatch):
    from wandb_workspaces.reports.v2 import interface

    looked_up = {"project": {"internalId": "1"}}
    monkeypatch.setattr(interface, "_get_api", lambda: None)
    monkeypatch.setattr(interface, "execute_graphql", lambda *_: looked_up)
    points = load(study)
    content = gather(study, fit_isoflop(points.table, resamples=100), points, False, "")
    report = build(content, Place("us", "study", "first"), "first")
    text = report._to_model().spec.model_dump_json(by_alias=True)
    spec = json.loads(text)
    assert spec["blocks"]
    for said in (
        content["said"].summary,
        content["said"].budgets[0].headline,
        "What this does not show",
        "No result yet for 2 of 44 runs",
        "summary:loss.val_nll_causal",
        "summary:n_params_nonembedding",
        "42 done, 1 failed, 1 planned",
    ):
        assert said.replace("_", "\\\\_") in text or said in text, said
    # Names of runs are shown as they stand, not as Markdown.
    assert content["runs"][0]["run"] in text


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["wandb-report", *map(str, arguments)])


def test_it_is_saved_by_the_real_client(study, backend):
    result = invoke(study, "--project", "us/study", "--bootstrap", 50)
    assert result.exit_code == 0, result.output
    assert backend.unknown == []
    (view,) = backend.views
    assert (view["entityName"], view["projectName"], view["type"]) == ("us", "study", "runs")
    assert view["displayName"] == "first: scaling study"
    assert "mor is ahead of vanilla at every budget" in view["spec"]
    grids = [b for b in json.loads(view["spec"])["blocks"] if b["type"] == "panel-grid"]
    (rule,) = grids[0]["metadata"]["runSets"][0]["filters"]["filters"]
    assert (rule["key"]["name"], rule["op"], rule["value"]) == ("group", "=", "first")
    assert result.stdout.strip().splitlines()[-1].startswith(backend.url)


def test_points_of_a_project_are_published_beside_them(backend):
    for row in study_table(models=("vanilla", "mor")).to_dict("records"):
        backend.runs[row["run_id"]] = ("g", result_of(row))
    assert invoke("wandb://us/study/g", "--bootstrap", 0).exit_code == 0
    assert backend.views[0]["projectName"] == "study"


def test_without_a_key_or_a_place_it_is_one_sentence(study, backend, monkeypatch):
    place = invoke(study)
    for fact in ("--project is missing", "--project entity/project"):
        assert fact in place.stderr
    half = invoke(study, "--project", "us")
    assert "--project 'us'" in half.stderr
    monkeypatch.delenv("WANDB_API_KEY")
    key = invoke(study, "--project", "us/study")
    assert "There is no W&B key" in key.stderr
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    backend.close()
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("analysis.points.wandb_client.TIMEOUT_S", 1)
    dead = invoke(study, "--project", "us/study", "--bootstrap", 0)
    assert "did not take the request" in dead.stderr
    for result in (place, half, key, dead):
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert backend.views == []
