import dataclasses
import json

import pytest
import typer
from typer.testing import CliRunner

from analysis.commands import options
from analysis.commands.cli import COMMANDS, app


@pytest.mark.parametrize("name", ["isoflop", "fit", "joint", "envelope", "compare"])
def test_every_fit_chooses_its_points_by_the_same_options(name):
    command = typer.main.get_command(app).commands[name]
    by_name = {parameter.name: parameter for parameter in command.params}
    for field in dataclasses.fields(options.Chosen):
        assert field.name in by_name
        if field.default is not dataclasses.MISSING:
            assert by_name[field.name].default == field.default
    assert {"bootstrap", "seed"} <= set(by_name)
    assert name in COMMANDS


def test_a_study_may_be_called_by_its_name(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called = CliRunner().invoke(app, ["isoflop", "first", "--json", "--bootstrap", "0"])
    assert called.exit_code == 0, called.output
    assert json.loads(called.stdout)["source"] == "studies/first"
    assert CliRunner().invoke(app, ["score", "first"]).stderr.count("studies/first") >= 1
    (tmp_path / "first").mkdir()  # a path goes first
    assert CliRunner().invoke(app, ["isoflop", "first"]).exit_code == 2
    assert "second" in CliRunner().invoke(app, ["isoflop", "second"]).stderr


def test_groups_are_spread_on_the_command_line_and_gathered_for_the_command():
    seen = []
    small = typer.Typer()

    @small.command()
    @options.flat
    def command(resampling: options.Resampling, as_json: options.AsJson = False) -> None:
        """Say what was given."""
        seen.append((resampling, as_json))

    assert CliRunner().invoke(small, ["--seed", "5", "--json"]).exit_code == 0
    assert CliRunner().invoke(small, ["--bootstrap", "-1"]).exit_code == 2
    assert seen == [(options.Resampling(1000, 5), True)]
