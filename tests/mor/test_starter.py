"""The wheel: built, unpacked away from the checkout, and used from an empty folder."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from ledger.errors import UserError
from mor import starter
from tests.interrupts import heard

REPO = Path(__file__).parents[2]
BUILD = "from setuptools import build_meta; build_meta.build_wheel('out')"
DEMO = "from mor.starter.command import app; app()"


def run(folder: Path, *arguments: object, path: Path | None = None):
    environment = {**os.environ, "PYTHONPATH": str(path or REPO), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip would put into site-packages."""
    root = tmp_path_factory.mktemp("wheel")
    source, unpacked = root / "source", root / "site-packages"
    source.mkdir()
    for name in ("ledger", "mor", "sweeps", "analysis", "hydra_plugins", "conf"):
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("sweep.py", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(REPO / name, source / name)
    (source / "out").mkdir()
    built = run(source, "-c", BUILD)
    assert built.returncode == 0, built.stderr
    (wheel,) = (source / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    return unpacked


def test_a_wheel_has_the_entry_with_all_settings_and_no_tests(installed: Path) -> None:
    names = {path.relative_to(REPO) for path in (REPO / "conf").rglob("*.yaml")}
    there = installed / "mor" / "starter"
    assert {path.relative_to(there) for path in (there / "conf").rglob("*.yaml")} == names
    assert (there / "sweep.py").read_bytes() == (REPO / "sweep.py").read_bytes()
    assert not (installed / "tests").exists()
    assert not (installed / "setup.py").exists()
    data = [p for p in REPO.glob("*/**/*.j2") if "tests" not in p.parts and ".venv" not in p.parts]
    assert data
    assert all((installed / path.relative_to(REPO)).is_file() for path in data)


def test_its_command_is_the_one_that_is_documented(installed: Path) -> None:
    (file,) = installed.glob("*.dist-info/entry_points.txt")
    points = configparser.ConfigParser()
    points.read(file)
    assert points["console_scripts"]["mor-isoflop"] == "mor.starter.command:app"


def test_the_demo_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    small = ("model=vanilla", "size=9k,16k,32k", "budget=1e9", "runtime.threads=1")
    ended = run(tmp_path, "-c", DEMO, "demo", *small, path=installed)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = list(tmp_path.glob("runs/*/result.json"))
    assert len(results) == 3
    assert {json.loads(file.read_text())["status"] for file in results} == {"done"}
    assert (tmp_path / "studies" / "quick" / "report.html").is_file()


def test_a_folder_of_ones_own_has_settings_to_edit(installed: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "-c", DEMO, "init", "mine", path=installed).returncode == 0
    own = tmp_path / "mine"
    size = own / "conf" / "size" / "9k.yaml"
    values = yaml.safe_load(size.read_text())
    (own / "conf" / "size" / "tiny.yaml").write_text(yaml.safe_dump({**values, "name": "tiny"}))
    planned = run(
        own, "sweep.py", "-m", "study=quick", "size=tiny", "model=vanilla", "budget=1e9",
        "launch=plan", "launch.plan_file=plan.json", path=installed,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    (entry,) = json.loads((own / "plan.json").read_text())["runs"]
    assert entry["size"] == "tiny"
    again = run(tmp_path, "-c", DEMO, "init", "mine", path=installed)
    assert again.returncode == 2
    assert "mine/sweep.py" in again.stderr
    assert (own / "conf" / "size" / "tiny.yaml").is_file()


@pytest.mark.parametrize("setting", ["launch=plan", "launch.mode=plan"])
def test_a_demo_that_is_only_planned_has_no_report(setting: str, tmp_path: Path) -> None:
    small = ("model=vanilla", "size=9k", "budget=1e9", "study.name=own")
    ended = run(tmp_path, "-c", DEMO, "demo", *small, setting)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "vanilla-9k-1e9-" in ended.stdout
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_the_demo_alone_stops_its_study_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("")
    (tmp_path / "sweep.py").write_text(
        "import pathlib, signal, sys, time\n"
        "told = []\n"
        f"signal.signal(signal.{name}, lambda *_: told.append(1))\n"
        "pathlib.Path('began').touch()\n"
        "while not told: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "pathlib.Path('told').write_text(str(len(told)))\n"
    )
    demo = subprocess.Popen(
        [sys.executable, "-c", DEMO, "demo"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0,
        preexec_fn=heard,
    )  # fmt: skip
    while not (tmp_path / "began").exists():
        assert demo.poll() is None, demo.communicate()
        time.sleep(0.01)
    os.killpg(demo.pid, getattr(signal, name))  # as a terminal does
    said, _ = demo.communicate(timeout=60)
    assert (demo.returncode, said) == (130, "")  # and there is no report
    assert (tmp_path / "told").read_text() == "1"


def test_the_version_is_that_of_the_distribution(installed: Path, tmp_path: Path) -> None:
    (folder,) = installed.glob("*.dist-info")
    ended = run(tmp_path, "-c", DEMO, "--version", path=installed)
    assert ended.returncode == 0
    assert ended.stdout.split()[-1] == folder.name.removesuffix(".dist-info").split("-")[-1]


@pytest.mark.parametrize("name", ["sweep.py", "conf"])
def test_what_is_there_is_not_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=name):
        starter.write_starter(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/below"):
        starter.write_starter(tmp_path / "file" / "below")


def test_settings_of_the_present_folder_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert starter.conf_folder() == starter.home() / "conf" == REPO / "conf"
    starter.write_starter(tmp_path)
    assert starter.conf_folder() == tmp_path / "conf"
