"""Mistakes on a command line are one sentence with the value and what to type, in every app."""

import pytest
import typer
from typer.testing import CliRunner

import mor.__main__
import mor.starter.command
import sweeps.__main__
from analysis.commands.cli import app

APPS = {
    "analysis": app,
    "sweeps": sweeps.__main__.app,
    "mor": mor.__main__.app,
    "mor-isoflop": mor.starter.command.app,
}


def refusal(name: str, *arguments: str) -> str:
    done = CliRunner().invoke(APPS[name], list(arguments))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def single_valued():
    for name, one in APPS.items():
        for command in typer.main.get_command(one).commands.values():
            for option in command.params:
                flagged = option.opts[0].startswith("-")
                if flagged and not option.multiple and option.name != "help":
                    value = () if option.is_flag else ("1",)
                    yield name, command.name, option.opts[0], value


@pytest.mark.parametrize(("name", "command", "option", "value"), list(single_valued()))
def test_an_option_of_one_value_is_not_given_twice(name, command, option, value):
    said = refusal(name, command, option, *value, option, *value)
    assert said.startswith(f"error: {option} is given twice")


def test_the_two_values_of_an_option_may_stand_anywhere():
    said = refusal("analysis", "compare", "--study", "quick", "runs", "--study=onslurm")
    assert "--study onslurm" in said
    assert "study.name" in said


def test_an_option_that_may_be_repeated_is_taken():
    done = CliRunner().invoke(app, ["figures", "--only", "x", "--only", "figure_4b"])
    assert "twice" not in done.stderr


def test_two_studies_are_compared_by_one_name_or_their_store():
    said = refusal("analysis", "compare", "studies/quick", "studies/own")
    for wanted in ("studies/own", "study.name", "compare runs", "docs/tutorial.md"):
        assert wanted in said
    assert "points" not in refusal("analysis", "design", "studies/own").lower()


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        (("analysis", "design", "--noise", "-1"), ("--noise=-1", "1e-09", "--noise 0.003")),
        (("analysis", "design", "--noise"), ("--noise 0.003",)),
        (("analysis", "figures", "--source", "all"), ("--source=all", "runs, paper, both")),
        (("analysis", "isoflop", "x", "--seed", "a"), ("--seed=a", "--seed 0")),
        (("analysis", "forecast", "x"), ("--at", "budget=1.65e19 model=mor,vanilla")),
        (("analysis", "isoflop"), ("POINTS", "POINTS")),
        (("analysis", "isoflop", "x", "--boot", "3"), ("--boot:", "--bootstrap")),
        (("analysis", "report", "x", "--baseline", "d"), ("--baseline:", "report --help")),
        (("analysis", "isoflo"), ("isoflo", "isoflop")),
        (("analysis", "--fast"), ("--fast", "--help")),
        (("mor-isoflop", "ini", "x"), ("ini", "init")),
        (("mor-isoflop", "--versio"), ("--versio", "--version")),
        (("sweeps", "autopilot"), ("--gpu-hours 1",)),
        (("sweeps", "status", "a", "b"), ("b:",)),
        (("sweeps", "logs", "x", "-n", "abc"), ("-n=abc", "type -n 20")),
        (("sweeps", "benchmark", "--seconds", "x"), ("--seconds=x", "type --seconds 0.5")),
        (("mor", "generate"), ("source", "runs/<run id>")),
        (("mor", "generate", "x", "--prompt", "a", "--seed", "1.5"), ("--seed=1.5", "--seed 0")),
    ],
)
def test_the_value_and_what_to_type(typed, wanted):
    said = refusal(*typed)
    assert all(words in said for words in wanted), said


@pytest.mark.parametrize("name", APPS)
def test_help_is_help(name):
    assert "Usage" in CliRunner().invoke(APPS[name], ["--help"]).stdout
    assert CliRunner().invoke(APPS[name], []).exit_code == 2
