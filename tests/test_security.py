"""What docs/security.md promises: secrets stand nowhere, text is never a formula or a tag."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.files import as_csv
from tests.sweeps.conftest import REPO

SECRETS = {
    "WANDB_API_KEY": "k" * 8 + "0123456789abcdef" * 2,
    "HF_TOKEN": "hf_plantedplantedplantedplanted",
    "AWS_SECRET_ACCESS_KEY": "aws/planted/secret/0123456789",
    "MY_PASSWORD": "correct-horse-battery-staple",
}
STUDY = (
    *("-m", "study=quick", "size=9k", "model=vanilla,mor", "budget=1e8,2e8"),
    *("train.val_tokens=512", "train.warmup_budget=3e7", "train.seq_len=64"),
    *("runtime.wandb=offline", "launch.workers=1"),
)


@pytest.mark.slow
def test_no_secret_of_the_environment_is_written_anywhere(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for i in range(20):
        (corpus / f"{i}.txt").write_text(f"document {i}: " + "some words of text " * 100)
    commands = (
        [str(REPO / "sweep.py"), *STUDY, "data=files", f"data.paths=[{corpus}/*.txt]"],
        ["-m", "sweeps", "status", "quick"],
        ["-m", "analysis", "report", "studies/quick"],
    )
    env = {**os.environ, **SECRETS, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    printed = ""
    for command in commands:
        ended = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, check=False
        )
        printed += (ended.stdout + ended.stderr).decode(errors="replace")
        assert ended.returncode == 0, printed
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"result.json", "plan.json", "report.html"}
    assert any(path.suffix == ".wandb" for path in files)
    for name, secret in SECRETS.items():
        assert secret not in printed, name
        holding = [path for path in files if secret.encode() in path.read_bytes()]
        assert not holding, name
    for folder in tmp_path.glob("studies/quick/launches/*/workers"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_cells_of_an_export_are_no_formulas() -> None:
    table = pd.DataFrame(
        {
            "model": ["=cmd()", "+1+1", "-x", "@SUM(A1)", "\t=1", "mor", "-", "-1.5"],
            "loss": [-1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
            "=head": range(8),
        }
    )
    first, *lines = as_csv(table).splitlines()
    assert first == "model,loss,'=head"
    cells = [line.split(",")[0] for line in lines]
    assert cells == ["'=cmd()", "'+1+1", "'-x", "'@SUM(A1)", "'\t=1", "mor", "-", "-1.5"]
    assert lines[0].split(",")[1] == "-1.0"


CODE = {
    "callbacks": "callbacks:\n    x:\n      _target_: os.mkdir\n      path: {mark}",
    "job_logging": "job_logging:\n    formatters:\n      a:\n        (): os.mkdir\n"
    "        path: {mark}",
    "hydra_logging": "hydra_logging:\n    version: 1\n    handlers:\n      a:\n"
    "        class: os.mkdir\n        path: {mark}",
    "sweeper": "sweeper:\n    _target_: os.mkdir\n    path: {mark}",
}


@pytest.mark.parametrize("part", CODE)
@pytest.mark.parametrize("many", [True, False])
def test_a_study_cannot_name_code_to_run(tmp_path: Path, part: str, many: bool) -> None:
    (tmp_path / "study").mkdir()
    mark = tmp_path / "ran"
    text = "# @package _global_\ndefaults: [quick, _self_]\nhydra:\n  "
    (tmp_path / "study" / "foreign.yaml").write_text(text + CODE[part].format(mark=mark) + "\n")
    command = [str(REPO / "sweep.py"), "-cd", str(tmp_path), "study=foreign", "launch=plan"]
    ended = subprocess.run(
        [sys.executable, *command, *(["-m"] if many else [])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not mark.exists()
    if part != "sweeper":  # Hydra takes none that is not a plugin; a single run has none at all
        assert ended.returncode == 2, ended.stdout + ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
