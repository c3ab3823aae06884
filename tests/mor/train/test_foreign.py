"""Run folders whose configuration or weights are another run's."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ledger.errors import UserError
from ledger.folder import RunFolder
from mor.__main__ import main
from mor.config import ModelConfig, SizeConfig
from mor.evaluate.inspection import inspect
from mor.identity import run_id
from mor.train.initial import trained_model
from mor.train.origin import read_origin
from mor.train.run import Hooks, train_run
from tests.conftest import toy_runs


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    architectures: dict[str, ModelConfig],
    tiny: SizeConfig,
) -> dict[str, Path]:
    """A finished run of each architecture, in a folder of its id."""
    root = tmp_path_factory.mktemp("foreign")
    make = toy_runs(root, architectures, tiny)
    found = {}
    for name in architectures:
        config = make(name, steps=6)
        found[name] = root / "runs" / run_id(config)
        train_run(config, RunFolder(found[name]), None, Hooks())
    return found


@pytest.fixture
def copied(runs: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a run with other settings; `without`: a file that it lacks."""

    def copy(
        changes: dict[str, Any], name: str | None = None, without: str = "", of: str = "mor"
    ) -> Path:
        folder = tmp_path / (name or runs[of].name)
        shutil.copytree(runs[of], folder)
        if without:
            (folder / without).unlink()
        file = folder / "config.yaml"
        values = yaml.safe_load(file.read_text())
        for setting, value in changes.items():
            *groups, last = setting.split(".")
            node = values
            for group in groups:
                node = node[group]
            if value is None:
                del node[last]
            else:
                node[last] = value
        file.write_text(yaml.safe_dump(values, sort_keys=False))
        return folder

    return copy


def commands(folder: Path, out: Path) -> list[tuple[object, ...]]:
    tasks = out.with_name("mine.jsonl")
    tasks.write_text(json.dumps({"text": "scaling law"}))
    return [
        ("generate", folder, "--prompt", "law"),
        ("inspect", folder, "--no-draw", "--out", out),
        ("export", folder, out, "hf"),
        ("evaluate", folder, "--tasks", tasks),
    ]


def refused(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """What each command says; nothing may be written, and the code is 2."""
    said = []
    before = sorted(folder.rglob("*"))
    for arguments in commands(folder, out):
        monkeypatch.setattr(sys, "argv", ["mor", *map(str, arguments)])
        assert main() == 2, arguments
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.splitlines()) == 1
        said.append(told.err)
    assert not out.exists()
    assert sorted(folder.rglob("*")) == before
    return said


@pytest.mark.parametrize("of", ["vanilla", "recursive", "mor_token"])
def test_weights_of_another_model_are_one_sentence(
    of: str, runs: dict[str, Path], copied: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = copied({})
    shutil.rmtree(folder / "checkpoints" / "final")
    shutil.copytree(runs[of] / "checkpoints" / "final", folder / "checkpoints" / "final")
    for said in refused(folder, tmp_path / "out", monkeypatch, capsys):
        assert str(folder) in said


def test_another_checkpoint_of_the_way_is_one_sentence(
    runs: dict[str, Path], copied: Callable[..., Path]
) -> None:
    folder = copied({})
    shutil.copytree(
        runs["vanilla"] / "checkpoints" / "final", folder / "checkpoints" / "step-00000001"
    )
    with pytest.raises(UserError, match="step-00000001"):
        inspect(folder, None, "step-00000001")
    assert inspect(folder, None, "final").measured


@pytest.mark.parametrize(
    ("name", "without"),
    [(None, ""), ("renamed", ""), ("a-copy-00000000", ""), (None, "result.json")],
)
@pytest.mark.parametrize(
    ("setting", "value"), [("model.n_recursions", 2), ("model.router.alpha", 0.5), ("seed", 7)]
)
def test_other_settings_than_those_of_the_run_are_one_sentence(
    setting: str, value: object, name: str | None, without: str, copied: Callable[..., Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = copied({setting: value}, name, without)
    for said in refused(folder, tmp_path / "out", monkeypatch, capsys):
        assert str(folder / "config.yaml") in said
        assert without or f"{setting}={value}" in said


@pytest.mark.parametrize(
    ("changes", "name", "without"),
    [
        ({"runtime.threads": 2, "train.eval_points": 3, "label": "mine"}, None, ""),
        ({"model.router.bias_update_rate": None, "train.muon_lr": None}, None, ""),
        ({"train.optimizer": None, "runtime": None}, None, ""),
        ({}, "renamed", ""),
        ({}, "a-copy-00000000", ""),
        ({}, "renamed", "result.json"),
        ({}, None, "result.json"),
    ],
    ids=["elsewhere", "older", "older-groups", "renamed", "like-an-id", "neither", "no-result"],
)
def test_what_changes_no_number_is_accepted(
    changes: dict[str, Any], name: str | None, without: str, copied: Callable[..., Path]
) -> None:
    """Where and how it runs, settings that an older version did not know, and names."""
    folder = copied(changes, name, without)
    assert read_origin(folder)
    assert trained_model(folder).model.n_recursions == 3
