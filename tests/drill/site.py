"""A small study in a folder of its own, the command that launches it, and what is right at its end.

The command runs in a fork of a process that has imported everything: it is `sweep.py` itself, with
a backend that trains in the process that launches, so that one kill hits planning, data, training
and results alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ledger.damage import META, checkpoint_digests_differ
from ledger.folder import RunFolder
from ledger.metrics import read_metrics
from ledger.plan_file import StudyFolder, read_plan

REPO = Path(__file__).parents[2]
STUDY = """# @package _global_
defaults:
  - quick
  - override /data: files
  - _self_
study:
  name: drill
  axes:
    model: [vanilla, mor]
    size: [9k]
    budget: [1e8, 2e8]
    seed: [0]
"""
SETTINGS = (
    *("train.val_tokens=512", "train.warmup_budget=3e7", "train.seq_len=64"),
    *("runtime.checkpoint_s=0.05", "runtime.log_steps=1", "launch.mode=inline"),
)
TIMED = ("throughput", "finished", "extra")
ENDS_S = 300.0  # for one launch; it takes seconds


class Wrong(Exception):
    """A fault was not survived."""


@dataclass
class Ended:
    """How a command ended, and what it printed."""

    code: int
    output: str


@dataclass
class Command:
    """A command in a process of its own, which can be sent signals."""

    pid: int
    output_file: Path
    code: int | None = None
    began: float = field(default_factory=time.monotonic)

    def running(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def send(self, number: int) -> bool:
        """Whether it was still running."""
        if not self.running():
            return False
        os.kill(self.pid, number)
        return True

    def wait(self) -> Ended:
        while self.running():
            if time.monotonic() - self.began > ENDS_S:
                self.send(signal.SIGKILL)
                raise Wrong(
                    f"did not end in {ENDS_S:.0f} s: {self.output_file.read_text()[-2000:]}"
                )
            time.sleep(0.01)
        assert self.code is not None
        return Ended(self.code, self.output_file.read_text(errors="replace"))


class Site:
    """The folder of one episode."""

    def __init__(self, root: Path, corpus: Path) -> None:
        self.root, self.corpus = root, corpus
        (root / "conf" / "study").mkdir(parents=True, exist_ok=True)
        self.yaml.write_text(STUDY)
        self._commands = 0

    @property
    def yaml(self) -> Path:
        return self.root / "conf" / "study" / "drill.yaml"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def study(self) -> StudyFolder:
        return StudyFolder(self.root / "studies" / "drill")

    def folders(self) -> list[RunFolder]:
        if not self.runs.is_dir():
            return []
        found = sorted(path for path in self.runs.iterdir() if path.is_dir())
        return [RunFolder(path) for path in found]

    def ended(self) -> list[RunFolder]:
        return [folder for folder in self.folders() if "-trunk-" not in folder.run_id]

    def copy_of(self, other: Site) -> None:
        """The finished study of another site, data and all."""
        for name in ("runs", "studies", "cache"):
            shutil.copytree(other.root / name, self.root / name, symlinks=True)

    # -- commands -------------------------------------------------------------------------------

    def launch(
        self, *more: str, before: Callable[[], None] = lambda: None, **environment: str
    ) -> Command:
        """`python sweep.py -m study=drill ...` in a fork; `before` runs in it first."""
        return self.fork(lambda: _run(REPO / "sweep.py", self._line(more)), before, environment)

    def here(self) -> int:
        """The same in this process."""
        return _run(REPO / "sweep.py", self._line(()))

    def _line(self, more: tuple[str, ...]) -> list[str]:
        return [
            *("-m", "-cd", str(self.root / "conf"), "study=drill"),
            f"data.paths=[{self.corpus}/*.txt]",
            *(f"data.cache_dir={self.cache}", f"runs_dir={self.runs}"),
            *(f"studies_dir={self.root / 'studies'}", *SETTINGS, *more),
        ]

    def pool(self) -> Command:
        """The same with `launch=local`, in a process that has imported nothing."""
        line = [one for one in self._line(()) if not one.startswith("launch.mode")]

        def start() -> int:
            command = [sys.executable, str(REPO / "sweep.py"), *line, "launch=local"]
            os.execv(sys.executable, command)

        return self.fork(start, lambda: None, {})

    @staticmethod
    def workers(launcher: Command) -> list[psutil.Process]:
        """The processes that a pool trains in."""
        try:
            below = psutil.Process(launcher.pid).children(recursive=True)
            return [p for p in below if "submitit" in " ".join(p.cmdline())]
        except psutil.Error:
            return []

    def analyse(self, *arguments: str) -> Command:
        """`python -m analysis ...` in a fork."""
        return self.fork(lambda: _run_module("analysis", list(arguments)), lambda: None, {})

    def fork(
        self, act: Callable[[], int], before: Callable[[], None], environment: dict[str, str]
    ) -> Command:
        self._commands += 1
        output = self.root / f"output-{self._commands}.txt"
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return Command(pid, output)
        code = 70
        try:
            _alone(output, self.root)
            os.environ.update(environment)
            before()
            code = act()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def complete(self, *more: str, **environment: str) -> Ended:
        """Type the command again, undisturbed: it ends well and says nothing strange."""
        ended = self.launch(*more, **environment).wait()
        if ended.code != 0:
            raise Wrong(f"the same command ended with {ended.code}: {ended.output[-1500:]}")
        tidy(ended)
        return ended


def _alone(output: Path, folder: Path) -> None:
    """Of a fork: its own session, output and folder, and signals as a new process has them."""
    os.setsid()
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2(handle, number)
    os.chdir(folder)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(name, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _run(script: Path, arguments: list[str]) -> int:
    sys.argv = [str(script), *arguments]
    return _exit_code(lambda: runpy.run_path(str(script), run_name="__main__"))


def _run_module(name: str, arguments: list[str]) -> int:
    sys.argv = [name, *arguments]
    return _exit_code(lambda: runpy.run_module(name, run_name="__main__", alter_sys=True))


def _exit_code(act: Callable[[], Any]) -> int:
    try:
        act()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def preload() -> None:
    """Import what a launch imports, and register the backend, before anything is forked."""
    import torch

    import analysis.commands.cli
    import analysis.report.page
    import mor.train.run
    import sweep
    import sweeps.single
    import sweeps.study
    from sweeps import backends
    from tests.sweeps.inline import Inline

    del analysis, mor, sweep, sweeps
    torch.set_num_threads(1)
    backends.register("inline", Inline)


def warm(site: Site) -> None:
    """Launch the study in this very process, so that forks need import nothing."""
    code = site.here()
    if code != 0:
        raise Wrong(f"the undisturbed study ended with {code}")
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(name, signal.SIG_DFL)


# -- what is right ------------------------------------------------------------------------------


def tidy(ended: Ended) -> None:
    """No message is a traceback. Raises Wrong."""
    for sign in ("Traceback", '  File "', "--- Logging error"):
        if sign in ended.output:
            raise Wrong(f"a message is a traceback: {ended.output[-2500:]}")


@dataclass(frozen=True)
class Reference:
    """The undisturbed study: weights, numbers and curves by run."""

    weights: dict[str, dict[str, str]]
    measured: dict[str, dict[str, Any]]
    curves: dict[str, dict[int, float]]

    @classmethod
    def of(cls, site: Site) -> Reference:
        weights, measured, curves = {}, {}, {}
        for folder in site.ended():
            files = json.loads((folder.final / META).read_text())["files"]
            weights[folder.run_id] = {n: d for n, d in files.items() if n != ".metadata"}
            result = folder.result()
            if result is None:
                raise Wrong(f"{folder.run_id}: no result")
            values = result.to_dict()
            measured[folder.run_id] = {
                name: value
                for name, value in values.items()
                if name not in TIMED and name not in result.extra
            }
        for folder in site.folders():
            curves[folder.run_id] = dict(_curve(folder))
        return cls(weights, measured, curves)

    def check(self, site: Site, whole_curves: bool = True) -> None:
        """Raises Wrong where the study is not this one. `whole_curves`: no line may be missing."""
        for name in self.weights:
            if not (site.runs / name / "result.json").exists():
                raise Wrong(f"{name} is lost")
        found = Reference.of(site)
        for what in ("weights", "measured"):
            mine, other = getattr(self, what), getattr(found, what)
            if mine.keys() != other.keys():
                raise Wrong(f"runs are {sorted(other)}, not {sorted(mine)}")
            for name in mine:
                if mine[name] != other[name]:
                    raise Wrong(f"{what} of {name} differ: {other[name]} for {mine[name]}"[:1500])
        planned = [run.run_id for run in read_plan(site.study.plan_file).runs]
        if sorted(planned) != sorted(self.weights):
            raise Wrong(f"the study's plan has {planned}")
        self._check_curves(site, found, whole_curves)
        _check_files(site)

    def _check_curves(self, site: Site, found: Reference, whole: bool) -> None:
        for folder in site.folders():
            steps = [step for step, _ in _curve(folder)]
            if steps != sorted(set(steps)):
                raise Wrong(f"{folder.run_id}: steps of metrics.jsonl {steps}")
            mine, other = self.curves[folder.run_id], found.curves[folder.run_id]
            same = mine == other if whole else other.items() <= mine.items()
            if not same:
                odd = set(mine.items()) ^ set(other.items())
                raise Wrong(f"{folder.run_id}: metrics.jsonl differs at {sorted(odd)[:6]}")


def _curve(folder: RunFolder) -> Iterator[tuple[int, float]]:
    """The lines that are whole: a damaged one stays where nobody writes the file again."""
    for values in read_metrics(folder.metrics_file)[0]:
        if "loss" in values:
            yield values["step"], values["loss"]


def _check_files(site: Site) -> None:
    """No partial file is taken for whole. Raises Wrong."""
    for folder in site.ended():
        damage = folder.damage() or checkpoint_digests_differ(folder.final)
        if damage:
            raise Wrong(f"{folder.run_id}: {damage}")
